import { inTransaction, type OwnedDatabase } from "@stillframe/db/client"
import {
  appendSnapshotEvent,
  appendWebhookEvent,
  listEvents,
  numberEvents,
} from "@stillframe/db/events/events"
import { disableWebhook, failPending } from "@stillframe/db/webhooks/disable"
import { redeliver } from "@stillframe/db/webhooks/redeliver"
import { resendDelivery } from "@stillframe/db/webhooks/resend-delivery"
import { findWebhook, updateWebhook } from "@stillframe/db/webhooks/webhooks"
import { testDatabase } from "@stillframe/testing/database"
import { startReceiver } from "@stillframe/testing/receiver"
import { expect, test } from "vitest"
import { endedOrWaiting } from "../events/lock-waits.ts"
import { snapshotRecord } from "../events/records.ts"
import { appendEvents, attempts, verified, webhookTo } from "./deliveries.ts"
import { testDispatcher } from "./dispatchers.ts"

function deliveriesTo(db: OwnedDatabase, webhookId: string) {
  return db
    .selectFrom("deliveries")
    .select(["state", "attempt", "error", "claimed_until"])
    .where("webhook_id", "=", webhookId)
    .orderBy("id")
    .execute()
}

test("a receiver that answers 410 gets nothing more, and the others hear of it", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  await using other = await startReceiver()
  const { db, url: databaseUrl } = database
  receiver.answerAll({ status: 410 })
  const gone = await webhookTo(db, receiver.url)
  await webhookTo(db, other.url, { eventTypes: ["webhook.*"] })
  await appendEvents(db, 40)

  await using _dispatcher = await testDispatcher({ databaseUrl })
  const [told] = await other.received(1)
  await appendEvents(db, 1)

  expect(await findWebhook(db, gone.id)).toMatchObject({ enabled: false, disabled_reason: "gone" })
  const [disabled] = await listEvents(db, { after: 40, limit: 1 })
  expect(verified(told!)).toEqual(disabled)
  expect(disabled).toMatchObject({
    type: "webhook.disabled",
    subject: { kind: "webhook", id: gone.id },
    data: { id: gone.id, url: new URL(receiver.url).origin, enabled: false, disabled_reason: "gone" },
  })
  expect(JSON.stringify(disabled)).not.toMatch(/whsec|secret"/)
  const waiting = async () => (await deliveriesTo(db, gone.id)).filter(({ state }) => state === "pending")
  await expect.poll(waiting).toEqual([])
  const ended = await deliveriesTo(db, gone.id)
  expect(ended).toHaveLength(40)
  for (const { state, error, claimed_until } of ended) {
    expect({ state, claimed_until }).toEqual({ state: "failed", claimed_until: null })
    expect(error).toContain("410")
  }
})

test("nothing but failures for five days disables, once another delivery is given up", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  receiver.answerAll({ status: 500 })
  const { id } = await webhookTo(db, receiver.url)
  const untilAttempted = async (count: number, clockOffset: string): Promise<void> => {
    await using _dispatcher = await testDispatcher({ databaseUrl, clockOffset })
    await expect.poll(async () => (await attempts(db)).length).toBe(count)
  }
  const leaveOneTry = () =>
    db.updateTable("deliveries").set({ attempt: 7 }).where("state", "=", "pending").execute()
  await appendEvents(db, 1)
  await untilAttempted(1, "0")
  const since = (await findWebhook(db, id))?.failing_since

  await leaveOneTry()
  await untilAttempted(2, "119 hours")
  expect(await deliveriesTo(db, id)).toMatchObject([{ state: "failed", attempt: 8 }])
  expect(await findWebhook(db, id)).toMatchObject({ enabled: true, failing_since: since })
  await appendEvents(db, 1)
  await untilAttempted(3, "121 hours")
  expect(await deliveriesTo(db, id)).toMatchObject([{}, { state: "pending", attempt: 1 }])
  expect(await findWebhook(db, id)).toMatchObject({ enabled: true, failing_since: since })
  await leaveOneTry()
  await appendEvents(db, 1)
  await using _last = await testDispatcher({ databaseUrl, clockOffset: "122 hours" })

  await expect
    .poll(() => findWebhook(db, id))
    .toMatchObject({ enabled: false, disabled_reason: "failing", failing_since: since })
  const failed = (error: string) => ({ state: "failed", error: expect.stringContaining(error) as string })
  await expect
    .poll(() => deliveriesTo(db, id))
    .toMatchObject([failed("500"), failed("500"), failed("5 days")])
  const feed = async () => (await listEvents(db, { after: 3, limit: 10 })).map(({ data }) => data)
  await expect.poll(feed).toMatchObject([{ disabled_reason: "failing", failing_since: since?.toISOString() }])
})

test("what waits is not in the way of disabling, and fails whoever disabled", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  const [refused, paused] = [await webhookTo(db, receiver.url), await webhookTo(db, receiver.url)]
  await appendEvents(db, 1_010)
  await numberEvents(db)
  await updateWebhook(db, paused.id, { enabled: false })
  const states = async (id: string) => (await deliveriesTo(db, id)).map(({ state }) => state)
  const all = (state: string) => Array.from({ length: 1_010 }, () => state)

  await db.transaction().execute(async (held) => {
    await held.selectFrom("deliveries").select("id").forUpdate().execute()
    expect(await disableWebhook(db, { id: refused.id, url: "https://before.example/" }, "gone")).toBe(false)
    expect(await disableWebhook(db, refused, "gone")).toBe(true)
    expect(await numberEvents(db)).toBe(1)
  })
  expect(await states(refused.id)).toEqual(all("pending"))
  await using _other = await testDispatcher({ databaseUrl })

  await expect.poll(() => states(refused.id)).toEqual(all("failed"))
  expect((await deliveriesTo(db, refused.id))[0]?.error).toContain("410")
  expect(await states(paused.id)).toEqual(all("pending"))
})

test("what has not failed yet when a webhook is enabled again is delivered", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  const webhook = await webhookTo(db, receiver.url)
  await appendEvents(db, 1_010)
  await numberEvents(db)
  await disableWebhook(db, webhook, "gone")

  expect(await failPending(db)).toBe(1_000)
  await updateWebhook(db, webhook.id, { enabled: true })
  expect(await failPending(db)).toBe(0)
  await using _dispatcher = await testDispatcher({ databaseUrl })

  expect(await receiver.received(10)).toHaveLength(10)
})

test("an event that is being numbered when its webhook is disabled leaves nothing to be sent", async () => {
  await using database = await testDatabase()
  const { db } = database
  const webhook = await webhookTo(db, "https://receiver.example")
  await appendSnapshotEvent(db, "snapshot.completed", snapshotRecord())

  // What numbers has made the delivery, and nobody sees it yet.
  const disabling = await inTransaction(db, async (tx) => {
    await numberEvents(tx)
    const disabled = disableWebhook(db, webhook, "gone")
    await endedOrWaiting(db, disabled)
    return { disabled }
  })

  expect(await disabling.disabled).toBe(true)
  await failPending(db)
  expect(await deliveriesTo(db, webhook.id)).toMatchObject([{ state: "failed" }])
})

test("what is sent again while its webhook is being disabled fails with the rest", async () => {
  await using database = await testDatabase()
  const { db } = database
  const webhook = await webhookTo(db, "https://receiver.example")
  await appendEvents(db, 1)
  const { id } = await db
    .updateTable("deliveries")
    .set({ state: "failed" })
    .returning("id")
    .executeTakeFirstOrThrow()

  const resending = await inTransaction(db, async (tx) => {
    const outcome = await resendDelivery(tx, { id, webhookId: webhook.id })
    const disabled = disableWebhook(db, webhook, "failing")
    await endedOrWaiting(db, disabled)
    return { outcome, disabled }
  })

  expect([resending.outcome, await resending.disabled]).toEqual(["resent", true])
  await failPending(db)
  expect(await deliveriesTo(db, webhook.id)).toMatchObject([{ state: "failed" }])
})

test("what is recovered while its webhook is being disabled fails with the rest", async () => {
  await using database = await testDatabase()
  const { db } = database
  await appendEvents(db, 1)
  const webhook = await webhookTo(db, "https://receiver.example")
  const { signal } = new AbortController()

  // An event that is locked holds the recovery up where it has looked at the webhook and made nothing yet.
  const both = await inTransaction(db, async (tx) => {
    await tx.selectFrom("events").select("id").forUpdate().execute()
    const recovered = redeliver(db, { webhookId: webhook.id, from: 1, to: 1, what: "missed" }, { signal })
    await endedOrWaiting(db, recovered)
    const disabled = disableWebhook(db, webhook, "failing")
    await endedOrWaiting(db, recovered, disabled)
    return { recovered, disabled }
  })

  expect(await both.disabled).toBe(true)
  expect(await both.recovered).toMatchObject({ outcome: "done", deliveries: 1 })
  await failPending(db)
  expect(await deliveriesTo(db, webhook.id)).toMatchObject([{ state: "failed" }])
})

test("one success ends the run of failures", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  receiver.answer({ status: 500 })
  const { id } = await webhookTo(db, receiver.url)
  await appendEvents(db, 1)
  const first = await testDispatcher({ databaseUrl })
  await expect.poll(() => findWebhook(db, id)).toMatchObject({ failing_since: expect.any(Date) as Date })
  await first[Symbol.asyncDispose]()

  await using _later = await testDispatcher({ databaseUrl, clockOffset: "6 days" })

  await expect.poll(() => deliveriesTo(db, id)).toMatchObject([{ state: "delivered", attempt: 2 }])
  await expect.poll(() => findWebhook(db, id)).toMatchObject({ enabled: true, failing_since: null })
})

test("a test event goes to its webhook only, whatever that filters", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  const tested = await webhookTo(db, `${receiver.url}/tested`, {
    eventTypes: ["snapshot.failed"],
    tags: { a: "b" },
  })
  await webhookTo(db, `${receiver.url}/other`)
  await appendWebhookEvent(db, "webhook.test", tested)
  await numberEvents(db)
  await appendEvents(db, 1)

  await using _dispatcher = await testDispatcher({ databaseUrl })
  await receiver.received(2)
  const pending = () => db.selectFrom("deliveries").select("id").where("state", "=", "pending").execute()
  await expect.poll(pending).toEqual([])

  const got = receiver.requests.map(
    (request) => `${request.path}: ${(verified(request) as { type: string }).type}`,
  )
  expect(got.toSorted()).toEqual(["/hook/other: snapshot.completed", "/hook/tested: webhook.test"])
})
