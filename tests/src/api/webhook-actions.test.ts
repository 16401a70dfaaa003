import { clock, now } from "@stillframe/db/client"
import { numberEvents } from "@stillframe/db/events/events"
import { openSecret } from "@stillframe/runtime/secrets"
import { expect, test } from "vitest"
import { secretsKey, testApi, type TestApi } from "./test-api.ts"

const url = "https://receiver.example/hook"
const unknown = ["x", "%00", `a${"0".repeat(23)}`]

async function newWebhook(api: TestApi): Promise<{ id: string; secret: string }> {
  const { status, body } = await api.ask("POST", "/webhooks", { body: { url } })
  expect(status).toBe(201)
  return body
}

/** Which secrets sign, the newest first, and until when the second does. */
async function secrets({ db }: TestApi): Promise<{ signing: string[]; graceSeconds: number | undefined }> {
  const row = await db
    .selectFrom("webhooks")
    .select(["secret", "previous_secret", "previous_secret_until"])
    .executeTakeFirstOrThrow()
  const sealed = [row.secret, row.previous_secret].filter((one) => one !== null)
  const until = row.previous_secret_until
  return {
    signing: sealed.map((one) => openSecret(secretsKey, one)),
    graceSeconds: until === null ? undefined : Math.ceil((+until - +(await now(db))) / 1_000),
  }
}

test("a secret is rotated: the new one is shown once, the one before signs for a while", async () => {
  await using api = await testApi()
  const { id, secret: first, ...shown } = await newWebhook(api)
  const rotate = (body?: object) => api.ask("POST", `/webhooks/${id}/rotate-secret`, body && { body })

  const second = await rotate()
  expect([second.status, second.body]).toEqual([
    200,
    {
      id,
      ...shown,
      secret: expect.stringMatching(/^whsec_[A-Za-z0-9+/]{43}=$/),
      previous_secret_until: expect.stringMatching(/^\d{4}-.*Z$/),
    },
  ])
  expect(second.body.secret).not.toBe(first)
  expect(await secrets(api)).toEqual({ signing: [second.body.secret, first], graceSeconds: 86_400 })

  const third = await rotate({ grace_seconds: 60 })
  expect(await secrets(api)).toEqual({ signing: [third.body.secret, second.body.secret], graceSeconds: 60 })
  const last = await rotate({ grace_seconds: 0 })
  expect(await secrets(api)).toEqual({ signing: [last.body.secret], graceSeconds: undefined })
  expect((await api.ask("GET", `/webhooks/${id}`)).body).toEqual({ id, ...shown })
})

test("a webhook shows until when its previous secret signs, in its events too, and then shows it no more", async () => {
  await using api = await testApi()
  const { id } = await newWebhook(api)
  const before = +(await now(api.db))
  const { body: rotated } = await api.ask("POST", `/webhooks/${id}/rotate-secret`, {
    body: { grace_seconds: 60 },
  })
  await api.ask("POST", `/webhooks/${id}/test`)
  await numberEvents(api.db)

  const { previous_secret_until } = rotated
  expect(Date.parse(previous_secret_until) - before).toBeGreaterThanOrEqual(60_000)
  expect(Date.parse(previous_secret_until) - before).toBeLessThan(80_000)
  const shown = { id, previous_secret_until }
  expect((await api.ask("GET", `/webhooks/${id}`)).body).toMatchObject(shown)
  expect((await api.ask("GET", "/webhooks")).body).toMatchObject([shown])
  expect((await api.ask("PATCH", `/webhooks/${id}`, { body: {} })).body).toMatchObject(shown)
  expect((await api.ask("GET", "/events")).body).toMatchObject([{ data: shown }])
  await api.db.updateTable("webhooks").set({ previous_secret_until: clock }).execute()
  expect((await api.ask("GET", `/webhooks/${id}`)).body).toMatchObject({ id, previous_secret_until: null })
})

test("a rotation that is sent again with its key shows the same secret, and rotates nothing", async () => {
  await using api = await testApi()
  const { id, secret: first } = await newWebhook(api)
  const rotate = () =>
    api.ask("POST", `/webhooks/${id}/rotate-secret`, { headers: { "idempotency-key": "rotate" } })

  const [one, other] = [await rotate(), await rotate()]

  expect([one.status, other.status]).toEqual([200, 200])
  expect(other.body).toEqual(one.body)
  expect(other.headers.get("idempotent-replayed")).toBe("true")
  expect((await secrets(api)).signing).toEqual([one.body.secret, first])
})

test("a rotation that can't be right is refused", async () => {
  await using api = await testApi()
  const { id, secret } = await newWebhook(api)

  for (const grace_seconds of [-1, 604_801, 1.5, "60", null]) {
    const { status } = await api.ask("POST", `/webhooks/${id}/rotate-secret`, { body: { grace_seconds } })
    expect([grace_seconds, status]).toEqual([grace_seconds, 400])
  }
  for (const other of unknown)
    expect((await api.ask("POST", `/webhooks/${other}/rotate-secret`)).status).toBe(404)
  expect((await secrets(api)).signing).toEqual([secret])
})

test("a test event is in the feed and goes to its webhook alone, whatever its filters", async () => {
  await using api = await testApi()
  await newWebhook(api)
  const body = { url, event_types: ["snapshot.completed"], tags: { team: "a" } }
  const { id, secret: _, ...shown } = (await api.ask("POST", "/webhooks", { body })).body

  const sent = await api.ask("POST", `/webhooks/${id}/test`)
  await numberEvents(api.db)

  expect([sent.status, sent.body]).toEqual([202, { event_id: expect.any(String) }])
  expect((await api.ask("GET", "/events")).body).toEqual([
    {
      id: sent.body.event_id,
      sequence: 1,
      type: "webhook.test",
      occurred_at: expect.any(String),
      subject: { kind: "webhook", id },
      // Readers of events need not be readers of webhooks.
      data: { id, ...shown, url: new URL(url).origin },
    },
  ])
  expect(await api.db.selectFrom("deliveries").select(["webhook_id", "sequence"]).execute()).toEqual([
    { webhook_id: id, sequence: 1 },
  ])
})

test("a test that is sent again with its key is one event; of a disabled webhook it is none", async () => {
  await using api = await testApi()
  const { id } = await newWebhook(api)
  const ask = (key: string) =>
    api.ask("POST", `/webhooks/${id}/test`, { headers: { "idempotency-key": key } })

  const [one, other] = [await ask("a"), await ask("a")]
  expect([one.status, other.status, other.body]).toEqual([202, 202, one.body])
  await api.ask("PATCH", `/webhooks/${id}`, { body: { enabled: false } })
  const refused = await ask("b")
  expect([refused.status, refused.body]).toEqual([
    409,
    { code: "conflict", message: expect.stringContaining("`enabled: true`") },
  ])
  expect(refused.headers.get("x-should-retry")).toBe("false")
  for (const wrong of unknown) expect((await api.ask("POST", `/webhooks/${wrong}/test`)).status).toBe(404)
  expect(await numberEvents(api.db)).toBe(1)
})
