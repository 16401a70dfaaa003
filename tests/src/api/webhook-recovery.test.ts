import { now } from "@stillframe/db/client"
import { removeOldEvents } from "@stillframe/db/events/remove"
import { redeliver } from "@stillframe/db/webhooks/redeliver"
import { sql } from "kysely"
import { expect, test } from "vitest"
import { snapshotRecord } from "../events/records.ts"
import { happen, testApi, type TestApi } from "./test-api.ts"

const longAgo = "2000-01-01T00:00:00Z"

async function newWebhook(api: TestApi, settings: object = {}): Promise<string> {
  const { status, body } = await api.ask("POST", "/webhooks", {
    body: { url: "https://receiver.example/", ...settings },
  })
  expect(status).toBe(201)
  return body.id
}

/** Of a webhook: sequence, state and tries of this round, oldest event first. */
async function deliveries({ db }: TestApi, webhookId: string): Promise<[number, string, number][]> {
  const rows = await db
    .selectFrom("deliveries")
    .select(["sequence", "state", "attempt"])
    .where("webhook_id", "=", webhookId)
    .orderBy("sequence")
    .execute()
  return rows.map(({ sequence, state, attempt }) => [sequence, state, attempt])
}

async function settle(
  { db }: TestApi,
  sequence: number,
  state: "delivered" | "failed",
  ended_at = new Date(),
): Promise<void> {
  await db
    .updateTable("deliveries")
    .set({ state, attempt: 8, ended_at })
    .where("sequence", "=", sequence)
    .execute()
}

function recover(api: TestApi, id: string, body: object = { since: longAgo }) {
  return api.ask("POST", `/webhooks/${id}/recover`, { body })
}

function replay(api: TestApi, id: string, from_sequence: number, to_sequence: number) {
  return api.ask("POST", `/webhooks/${id}/replay`, { body: { from_sequence, to_sequence } })
}

test("recover sends what has failed, what came while a webhook was disabled, and what came before it", async () => {
  await using api = await testApi()
  await happen(api, 1)
  const id = await newWebhook(api)
  await happen(api, 3)
  await settle(api, 2, "delivered")
  await settle(api, 3, "failed")
  await api.ask("PATCH", `/webhooks/${id}`, { body: { enabled: false } })
  await happen(api, 1)
  await api.ask("PATCH", `/webhooks/${id}`, { body: { enabled: true } })
  const before = await now(api.db)

  const { status, body } = await recover(api, id)

  expect([status, body]).toEqual([202, { deliveries: 3, last_sequence: 5, complete: true }])
  expect(await deliveries(api, id)).toEqual([
    [1, "pending", 0],
    [2, "delivered", 8],
    [3, "pending", 0],
    [4, "pending", 0],
    [5, "pending", 0],
  ])
  const [again] = await api.db
    .selectFrom("deliveries")
    .select(["next_attempt_at", "ended_at"])
    .where("sequence", "=", 3)
    .execute()
  expect(again).toEqual({ next_attempt_at: expect.any(Date), ended_at: null })
  expect(+again!.next_attempt_at).toBeGreaterThanOrEqual(+before)
  expect((await recover(api, id)).body).toEqual({ deliveries: 0, last_sequence: 5, complete: true })
})

test("recover keeps to its time, whatever the order of the numbers", async () => {
  await using api = await testApi()
  await happen(api, 5)
  const id = await newWebhook(api)
  const hours = [10, 12, 11, 13, 12]
  for (const [index, hour] of hours.entries())
    await api.db
      .updateTable("events")
      .set({ occurred_at: new Date(`2026-01-01T${hour}:00:00Z`) })
      .where("sequence", "=", index + 1)
      .execute()

  const range = { since: "2026-01-01T12:00:00+01:00", until: "2026-01-01T13:00:00Z" }
  expect((await recover(api, id, range)).body).toEqual({ deliveries: 3, last_sequence: 5, complete: true })
  expect((await deliveries(api, id)).map(([sequence]) => sequence)).toEqual([2, 3, 5])
  const nothing = await recover(api, id, { since: "2026-01-01T14:00:00Z" })
  expect(nothing.body).toEqual({ deliveries: 0, last_sequence: 5, complete: true })
})

test("recover and replay send what the webhook's filters match, and nobody else's test", async () => {
  await using api = await testApi()
  const other = await newWebhook(api)
  const tags = { team: "a" }
  const snapshot = snapshotRecord({ tags })
  await happen(api, 1, snapshot)
  await happen(api, 1, snapshotRecord({ tags }))
  await happen(api, 1, { ...snapshot, tags: {} })
  await api.ask("POST", `/webhooks/${other}/test`)
  await happen(api, 0)
  const filters = { event_types: ["snapshot.*"], instance_ids: [snapshot.source_instance_id], tags }
  const [id, all] = [await newWebhook(api, filters), await newWebhook(api)]

  for (const one of [id, all]) expect((await recover(api, one)).status).toBe(202)
  expect(await deliveries(api, id)).toEqual([[1, "pending", 0]])
  expect((await deliveries(api, all)).map(([sequence]) => sequence)).toEqual([1, 2, 3])
  expect((await replay(api, id, 1, 4)).body).toEqual({ deliveries: 1, last_sequence: 4, complete: true })
  expect((await replay(api, all, 1, 4)).body).toEqual({ deliveries: 3, last_sequence: 4, complete: true })
  expect((await replay(api, other, 4, 4)).body.deliveries).toBe(1)
})

test("replay sends a range again, also what was delivered, as far as there are events", async () => {
  await using api = await testApi()
  const id = await newWebhook(api)
  await happen(api, 4)
  for (const sequence of [1, 2, 3]) await settle(api, sequence, "delivered")

  expect((await replay(api, id, 2, 3)).body).toEqual({ deliveries: 2, last_sequence: 3, complete: true })
  expect(await deliveries(api, id)).toEqual([
    [1, "delivered", 8],
    [2, "pending", 0],
    [3, "pending", 0],
    [4, "pending", 0],
  ])
  const beyond = await replay(api, id, 4, Number.MAX_SAFE_INTEGER)
  expect(beyond.body).toEqual({ deliveries: 1, last_sequence: 4, complete: true })
  expect((await replay(api, id, 9, 9)).body).toEqual({ deliveries: 0, last_sequence: 8, complete: true })
})

test("replay says which events are no longer kept; recover sends those that are", async () => {
  await using api = await testApi()
  const id = await newWebhook(api)
  await happen(api, 3)
  for (const sequence of [1, 2, 3]) await settle(api, sequence, "failed")
  await sql`update events set occurred_at = ${longAgo} where sequence <= 2`.execute(api.db)
  expect(await removeOldEvents(api.db, 86_400_000)).toBe(2)

  const tooLate = await replay(api, id, 1, 3)

  expect([tooLate.status, tooLate.body]).toEqual([
    410,
    { code: "gone", message: expect.stringContaining("replay from 3"), oldest: 3 },
  ])
  expect((await recover(api, id)).body).toEqual({ deliveries: 1, last_sequence: 3, complete: true })
})

test("what can't be recovered or replayed is refused", async () => {
  await using api = await testApi()
  const id = await newWebhook(api)
  await happen(api, 2)
  await settle(api, 1, "failed")

  for (const body of [
    {},
    { since: "yesterday" },
    { since: "2026-02-30T00:00:00Z" },
    { since: "2026-01-01" },
    { since: null },
    { since: longAgo, until: longAgo },
    { since: "9000-01-01T00:00:00Z" },
  ])
    expect([body, (await recover(api, id, body)).status]).toEqual([body, 400])
  for (const [from, to] of [
    [0, 1],
    [2, 1],
    [1.5, 2],
    [1, 1e300],
  ] as const)
    expect([from, to, (await replay(api, id, from, to)).status]).toEqual([from, to, 400])
  for (const other of ["x", "%00", `a${"0".repeat(23)}`]) {
    expect((await recover(api, other)).status).toBe(404)
    expect((await replay(api, other, 1, 1)).status).toBe(404)
  }
  expect((await recover(api, id, { since: "0000-01-01T00:00:00+23:59", until: longAgo })).status).toBe(202)
  await api.ask("PATCH", `/webhooks/${id}`, { body: { enabled: false } })
  for (const refused of [await recover(api, id), await replay(api, id, 1, 2)])
    expect([refused.status, refused.body.code]).toEqual([409, "conflict"])
  expect(await deliveries(api, id)).toEqual([
    [1, "failed", 8],
    [2, "pending", 0],
  ])
})

test("a replay that is sent again with its key is carried out once", async () => {
  await using api = await testApi()
  const id = await newWebhook(api)
  await happen(api, 2)
  const ask = () =>
    api.ask("POST", `/webhooks/${id}/replay`, {
      body: { from_sequence: 1, to_sequence: 2 },
      headers: { "idempotency-key": "replay" },
    })

  const first = await ask()
  await settle(api, 1, "delivered")
  const second = await ask()

  expect(first.body.deliveries).toBe(2)
  expect([second.status, second.body]).toEqual([202, first.body])
  expect(await deliveries(api, id)).toEqual([
    [1, "delivered", 8],
    [2, "pending", 0],
  ])
})

test("more than fits into one transaction or one request is made in parts, each event once", async () => {
  await using api = await testApi()
  const id = await newWebhook(api, { enabled: false })
  await happen(api, 10)
  await api.ask("PATCH", `/webhooks/${id}`, { body: { enabled: true } })
  const range = { webhookId: id, from: 1, to: 10, what: "missed" } as const
  const small = { eventsPerTransaction: 3, deliveriesPerCall: 7, signal: new AbortController().signal }

  const first = await redeliver(api.db, range, small)
  expect(first).toEqual({ outcome: "stopped", deliveries: 6, lastSequence: 6 })
  const second = await redeliver(api.db, { ...range, from: first.lastSequence + 1 }, small)
  expect(second).toEqual({ outcome: "done", deliveries: 4, lastSequence: 10 })
  expect(await deliveries(api, id)).toHaveLength(10)
  const stopped = await redeliver(api.db, range, { ...small, signal: AbortSignal.abort() })
  expect(stopped).toEqual({ outcome: "stopped", deliveries: 0, lastSequence: 0 })
})
