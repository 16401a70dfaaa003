import { now } from "@stillframe/db/client"
import type { DeliveryResource } from "@stillframe/domain/delivery"
import { afterAll, beforeAll, expect, test } from "vitest"
import { happen, testApi, type TestApi } from "./test-api.ts"

const url = "https://receiver.example/hook"

let api: TestApi
beforeAll(async () => {
  api = await testApi()
})
afterAll(() => api[Symbol.asyncDispose]())

/** A webhook to which so many events are to be delivered, newest first. */
async function webhookWith(events: number): Promise<{ id: string; deliveries: DeliveryResource[] }> {
  await api.db.updateTable("webhooks").set({ enabled: false }).execute()
  const { id } = (await api.ask("POST", "/webhooks", { body: { url } })).body
  await happen(api, events)
  return { id, deliveries: (await api.ask("GET", `/webhooks/${id}/deliveries`)).body }
}

/** What a dispatcher writes when an attempt has come to its end. */
async function attempted(
  id: string,
  outcome: { state: "delivered" | "failed"; response_status: number | null; error: string | null },
): Promise<void> {
  const { state, response_status, error } = outcome
  const ended_at = new Date("2026-01-02T03:04:05.678Z")
  const delivery_id = Number(id)
  await api.db
    .insertInto("delivery_attempts")
    .values({
      delivery_id,
      attempted_at: ended_at,
      duration_ms: 12,
      response_status,
      response_body: "ä",
      error,
    })
    .execute()
  await api.db
    .updateTable("deliveries")
    .set({ state, attempt: 8, ended_at, response_status, error, claimed_until: new Date("2100-01-01") })
    .where("id", "=", delivery_id)
    .execute()
}

test("deliveries are listed newest first, a page at a time, by their state", async () => {
  const { id, deliveries } = await webhookWith(5)
  const sequences = deliveries.map(({ sequence }) => sequence)
  const list = async (query: string) => {
    const { body, headers } = await api.ask("GET", `/webhooks/${id}/deliveries${query}`)
    return {
      sequences: body.map((one: DeliveryResource) => one.sequence),
      next: headers.get("x-next-cursor"),
    }
  }

  expect(sequences).toEqual(sequences.toSorted((one, other) => other - one))
  expect(deliveries).toHaveLength(5)
  const [event] = (await api.ask("GET", `/events?after=${sequences[0]! - 1}`)).body
  expect(deliveries[0]).toEqual({
    id: expect.stringMatching(/^\d+$/),
    webhook_id: id,
    sequence: event.sequence,
    event_id: event.id,
    event_type: event.type,
    state: "pending",
    attempt_count: 0,
    next_attempt_at: expect.any(String),
  })
  await attempted(deliveries[1]!.id, { state: "failed", response_status: null, error: "reset" })
  expect(await list("?state=failed")).toEqual({ sequences: [sequences[1]], next: null })
  expect(await list("?state=delivered")).toEqual({ sequences: [], next: null })

  const first = await list("?limit=2&state=pending")
  expect(first.sequences).toEqual([sequences[0], sequences[2]])
  const rest = await list(`?limit=2&state=pending&cursor=${first.next}`)
  expect(rest).toEqual({ sequences: [sequences[3], sequences[4]], next: null })
})

test("the next page of deliveries is said in the headers, and what is no page is refused", async () => {
  const { id } = await webhookWith(2)
  const path = `/webhooks/${id}/deliveries`
  const { headers } = await api.ask("GET", `${path}?state=pending&limit=1`)
  const [, next = ""] = /^<(.+)>; rel="next"$/.exec(headers.get("link") ?? "") ?? []

  expect(next).toContain("state=pending")
  expect((await api.ask("GET", next)).body).toHaveLength(1)
  for (const query of ["limit=0", "limit=1001", "state=ended", "cursor=x", "cursor=-1", "state="])
    expect([query, (await api.ask("GET", `${path}?${query}`)).status]).toEqual([query, 400])
  for (const other of ["x", "%00", `a${"0".repeat(23)}`])
    expect((await api.ask("GET", `/webhooks/${other}/deliveries`)).status).toBe(404)
})

test("a delivery is shown with each of its attempts", async () => {
  const { deliveries } = await webhookWith(1)
  const [{ next_attempt_at: _, ...pending }] = deliveries as [DeliveryResource]
  await attempted(pending.id, { state: "failed", response_status: 500, error: "answered 500" })
  await attempted(pending.id, { state: "delivered", response_status: 204, error: null })

  const { status, body } = await api.ask("GET", `/deliveries/${pending.id}`)

  const attempted_at = "2026-01-02T03:04:05.678Z"
  const attempt = { attempted_at, duration_ms: 12, response_body: "ä" }
  expect([status, body]).toEqual([
    200,
    {
      ...pending,
      state: "delivered",
      attempt_count: 2,
      ended_at: attempted_at,
      response_status: 204,
      attempts: [
        { ...attempt, response_status: 500, error: "answered 500" },
        { ...attempt, response_status: 204 },
      ],
    },
  ])
})

test("a delivery that is sent again is due at once, with all its tries before it", async () => {
  const { deliveries } = await webhookWith(2)
  const [{ id }, { id: other }] = deliveries as [DeliveryResource, DeliveryResource]
  await attempted(id, { state: "failed", response_status: 500, error: "answered 500" })

  const { status, body } = await api.ask("POST", `/deliveries/${id}/resend`)

  expect([status, body]).toMatchObject([202, { id, state: "pending", attempt_count: 1 }])
  expect(body).not.toHaveProperty("ended_at")
  expect(+new Date(body.next_attempt_at)).toBeLessThanOrEqual(+(await now(api.db)))
  const rows = await api.db
    .selectFrom("deliveries")
    .select(["attempt", "claimed_until"])
    .where("id", "in", [Number(id), Number(other)])
    .execute()
  expect(rows).toEqual([
    { attempt: 0, claimed_until: null },
    { attempt: 0, claimed_until: null },
  ])
})

test("an attempt that is in flight when its delivery is sent again has no claim to it any more", async () => {
  const { deliveries } = await webhookWith(1)
  const id = deliveries[0]!.id
  const claimed_until = new Date("2100-01-01")
  await api.db
    .updateTable("deliveries")
    .set({ claimed_until, attempt: 7 })
    .where("id", "=", Number(id))
    .execute()

  expect((await api.ask("POST", `/deliveries/${id}/resend`)).status).toBe(202)

  const row = api.db
    .selectFrom("deliveries")
    .select(["claimed_until", "attempt"])
    .where("id", "=", Number(id))
  expect(await row.executeTakeFirst()).toEqual({ claimed_until: null, attempt: 0 })
})

test("a request to send again with the same key is carried out once, and shows what has become of it", async () => {
  const { deliveries } = await webhookWith(1)
  const id = deliveries[0]!.id
  const resend = () =>
    api.ask("POST", `/deliveries/${id}/resend`, { headers: { "idempotency-key": "again" } })

  const first = await resend()
  await attempted(id, { state: "delivered", response_status: 204, error: null })
  const second = await resend()

  const { attempts: _, ...now } = (await api.ask("GET", `/deliveries/${id}`)).body
  expect([first.body.state, now.state]).toEqual(["pending", "delivered"])
  expect([second.status, second.body]).toEqual([202, now])
})

test("nothing is sent again to a disabled webhook, nor what is not there", async () => {
  const { id: webhook, deliveries } = await webhookWith(1)
  const id = deliveries[0]!.id
  await attempted(id, { state: "failed", response_status: 410, error: "gone" })
  await api.ask("PATCH", `/webhooks/${webhook}`, { body: { enabled: false } })

  const refused = await api.ask("POST", `/deliveries/${id}/resend`)
  expect([refused.status, refused.body.code]).toEqual([409, "conflict"])
  expect((await api.ask("GET", `/deliveries/${id}`)).body.state).toBe("failed")
  await api.ask("DELETE", `/webhooks/${webhook}`)
  for (const gone of [id, "0", "x", "%00", "1.5", "9".repeat(15), "9".repeat(30)]) {
    expect((await api.ask("GET", `/deliveries/${gone}`)).status).toBe(404)
    expect((await api.ask("POST", `/deliveries/${gone}/resend`)).status).toBe(404)
  }
})
