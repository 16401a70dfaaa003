import { startReceiver, type ReceivedRequest } from "@stillframe/testing/receiver"
import { Webhook } from "standardwebhooks"
import { expect, test } from "vitest"
import { testDispatcher } from "../dispatcher/dispatchers.ts"
import { happen, secretsKey, testApi } from "./test-api.ts"

function ids(requests: readonly ReceivedRequest[]): unknown[] {
  return requests.map(({ headers }) => headers["webhook-id"])
}

test("what a receiver has missed comes again under the same ids, signed with the secret of now", async () => {
  await using api = await testApi()
  await using receiver = await startReceiver()
  const { id } = (await api.ask("POST", "/webhooks", { body: { url: receiver.url } })).body
  receiver.answer({ status: 500 }, { status: 500 })
  await happen(api, 2)
  const databaseUrl = api.databaseUrl
  await using _dispatcher = await testDispatcher({ databaseUrl, secretsKey })
  const list = async (state: string) =>
    (await api.ask("GET", `/webhooks/${id}/deliveries?state=${state}`)).body as { id: string }[]
  const missed = await receiver.received(2)
  await expect.poll(() => list("pending")).toMatchObject([{ response_status: 500 }, { response_status: 500 }])
  // As if it had been down for longer than anything is tried.
  await api.db.updateTable("deliveries").set({ state: "failed" }).execute()
  const { secret } = (await api.ask("POST", `/webhooks/${id}/rotate-secret`, { body: { grace_seconds: 0 } }))
    .body

  const [first, second] = await list("failed")
  await api.ask("POST", `/deliveries/${first!.id}/resend`)
  const [, , resent] = await receiver.received(3)
  const recovered = await api.ask("POST", `/webhooks/${id}/recover`, {
    body: { since: "2000-01-01T00:00:00Z" },
  })
  const requests = await receiver.received(4)

  expect(recovered.body.deliveries).toBe(1)
  expect(new Set(ids(requests.slice(2)))).toEqual(new Set(ids(missed)))
  for (const { body, headers } of [resent!, requests[3]!])
    expect(new Webhook(secret).verify(body, headers as Record<string, string>)).toBeTruthy()
  await expect.poll(() => list("delivered")).toMatchObject([{ id: first!.id }, { id: second!.id }])
})
