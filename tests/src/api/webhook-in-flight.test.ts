import type { ServerResponse } from "node:http"
import { disableWebhook, failPending } from "@stillframe/db/webhooks/disable"
import { startReceiver } from "@stillframe/testing/receiver"
import { expect, test } from "vitest"
import { attempts } from "../dispatcher/deliveries.ts"
import { testDispatcher } from "../dispatcher/dispatchers.ts"
import { happen, secretsKey, testApi, type TestApi } from "./test-api.ts"

interface Asked {
  readonly api: TestApi
  readonly webhook: string
  readonly delivery: string
}

type AskAgain = (asked: Asked) => Promise<unknown>

const resend: AskAgain = async ({ api, delivery }) => {
  expect((await api.ask("POST", `/deliveries/${delivery}/resend`)).status).toBe(202)
}

const replay: AskAgain = async ({ api, webhook }) => {
  const body = { from_sequence: 1, to_sequence: 1 }
  expect((await api.ask("POST", `/webhooks/${webhook}/replay`, { body })).body.deliveries).toBe(1)
}

/** What has been given up for its webhook may be in flight still. */
const recover: AskAgain = async ({ api, webhook }) => {
  const { url } = (await api.ask("GET", `/webhooks/${webhook}`)).body
  await disableWebhook(api.db, { id: webhook, url }, "failing")
  await failPending(api.db)
  await api.ask("PATCH", `/webhooks/${webhook}`, { body: { enabled: true } })
  const body = { since: "2000-01-01T00:00:00Z" }
  expect((await api.ask("POST", `/webhooks/${webhook}/recover`, { body })).body.deliveries).toBe(1)
}

const ways: readonly [string, AskAgain][] = [
  ["resend", resend],
  ["replay", replay],
  ["recover", recover],
]

/** A receiver that answers when the test does, and the last try of a delivery on its way to it. */
async function lastTryInFlight() {
  await using opened = new AsyncDisposableStack()
  const api = opened.use(await testApi())
  const receiver = opened.use(await startReceiver())
  const responses: ServerResponse[] = []
  receiver.answerAll((response) => void responses.push(response))
  const body = { url: receiver.url, event_types: ["snapshot.*"] }
  const webhook: string = (await api.ask("POST", "/webhooks", { body })).body.id
  await happen(api, 1)
  await api.db.updateTable("deliveries").set({ attempt: 7 }).execute()
  const [{ id: delivery }] = (await api.ask("GET", `/webhooks/${webhook}/deliveries`)).body
  opened.use(await testDispatcher({ databaseUrl: api.databaseUrl, secretsKey }))
  await receiver.received(1)
  const resources = opened.move()
  return {
    asked: { api, webhook, delivery } satisfies Asked,
    receiver,
    answer: async (request: number, status: number): Promise<void> => {
      responses[request - 1]?.writeHead(status).end()
      const recorded = async () => (await attempts(api.db)).map(({ response_status }) => response_status)
      await expect.poll(recorded).toContain(status)
    },
    row: () =>
      api.db.selectFrom("deliveries").select(["state", "attempt", "claimed_until"]).executeTakeFirstOrThrow(),
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  }
}

test.each(ways)("a %s outlives the failure of the attempt that is in flight", async (_name, askAgain) => {
  await using inFlight = await lastTryInFlight()
  const { receiver, asked, answer, row } = inFlight

  await askAgain(asked)
  const [first, again] = await receiver.received(2)
  await answer(1, 500)

  expect(await row()).toEqual({ state: "pending", attempt: 0, claimed_until: expect.any(Date) as Date })
  await answer(2, 204)
  expect(await row()).toEqual({ state: "delivered", attempt: 1, claimed_until: null })
  expect(again!.headers["webhook-id"]).toBe(first!.headers["webhook-id"])
  expect(again!.body).toBe(first!.body)
})

test.each(ways)(
  "the success of the attempt in flight is that of its %s, whatever comes after it",
  async (_name, askAgain) => {
    await using inFlight = await lastTryInFlight()
    const { receiver, asked, answer, row } = inFlight

    await askAgain(asked)
    await receiver.received(2)
    await answer(1, 204)

    expect(await row()).toEqual({ state: "delivered", attempt: 1, claimed_until: null })
    await answer(2, 500)
    expect(await row()).toEqual({ state: "delivered", attempt: 1, claimed_until: null })
    const { body } = await asked.api.ask("GET", `/deliveries/${asked.delivery}`)
    expect(body).toMatchObject({ state: "delivered", response_status: 204, attempt_count: 2 })
  },
)

test("recover leaves an attempt in flight alone, and what it comes to counts", async () => {
  await using inFlight = await lastTryInFlight()
  const { receiver, asked, answer, row } = inFlight
  const { api, webhook } = asked
  const body = { since: "2000-01-01T00:00:00Z" }

  const recovered = await api.ask("POST", `/webhooks/${webhook}/recover`, { body })
  await answer(1, 500)

  expect(recovered.body.deliveries).toBe(0)
  expect(await row()).toEqual({ state: "failed", attempt: 8, claimed_until: null })
  expect(receiver.requests.length).toBe(1)
})
