import { inTransaction, openDatabase } from "@stillframe/db/client"
import { appendSnapshotEvent, listEvents, numberEvents } from "@stillframe/db/events/events"
import { readEventHead } from "@stillframe/db/events/head"
import { removeOldEvents } from "@stillframe/db/events/remove"
import type { Database } from "@stillframe/db/schema"
import { redeliver } from "@stillframe/db/webhooks/redeliver"
import { resendDelivery } from "@stillframe/db/webhooks/resend-delivery"
import { createWebhook, updateWebhook } from "@stillframe/db/webhooks/webhooks"
import { testDatabase } from "@stillframe/testing/database"
import { expect, test } from "vitest"
import { testDispatcher } from "../dispatcher/dispatchers.ts"
import { endedOrWaiting } from "./lock-waits.ts"
import { snapshotRecord } from "./records.ts"

const hourMs = 3_600_000

async function append(db: Database, count: number): Promise<void> {
  for (let n = 0; n < count; n += 1) await appendSnapshotEvent(db, "snapshot.created", snapshotRecord())
}

async function kept(db: Database): Promise<number[]> {
  return (await listEvents(db, { after: 0, limit: 10_000 })).map(({ sequence }) => sequence)
}

test("what is old goes in rounds, what is young or has no number yet stays, and the oldest is known", async () => {
  await using old = await testDatabase({ clockOffset: "-2 hours" })
  const { db, url } = old
  await append(db, 1_203)
  while ((await numberEvents(db)) > 0);
  const present = openDatabase({ url, onIdleError: () => {} })
  await append(present, 2)
  await numberEvents(present)
  await append(db, 1)

  const rounds = [
    await removeOldEvents(present, hourMs),
    await removeOldEvents(present, hourMs),
    await removeOldEvents(present, hourMs),
  ]

  expect(rounds).toEqual([1_000, 203, 0])
  expect(await kept(present)).toEqual([1_204, 1_205])
  expect(await readEventHead(present)).toEqual({ sequence: 1_205, oldest: 1_204 })
  expect(await numberEvents(present)).toBe(1)
  await present.destroy()
})

test("the oldest is known when nothing is left, and two that remove at once do no harm", async () => {
  await using database = await testDatabase()
  const { db } = database
  await append(db, 10)
  await numberEvents(db)

  const removed = await Promise.all([removeOldEvents(db, -1), removeOldEvents(db, -1)])
  await append(db, 1)
  await numberEvents(db)

  expect(Math.max(...removed)).toBe(10)
  expect(await kept(db)).toEqual([11])
  expect(await readEventHead(db)).toEqual({ sequence: 11, oldest: 11 })
})

test("a remover that another has overtaken does not move the oldest back", async () => {
  await using database = await testDatabase()
  const { db } = database
  await createWebhook(db, { url: "https://receiver.example/", secret: Buffer.from("sealed") })
  await append(db, 6)
  await numberEvents(db)
  await db.updateTable("deliveries").set({ state: "delivered" }).where("sequence", "<>", 3).execute()

  // The slow one has seen the third as pending, so it will stop there; the quick one has not.
  const { removed } = await inTransaction(db, async (tx) => {
    await tx.deleteFrom("deliveries").where("sequence", "<=", 4).execute()
    await tx.deleteFrom("events").where("sequence", "<=", 4).execute()
    await tx.updateTable("event_head").set({ oldest: 5 }).execute()
    const removing = removeOldEvents(db, -1)
    await endedOrWaiting(db, removing)
    return { removed: { removing } }
  })
  await removed.removing

  expect(await kept(db)).toEqual([5, 6])
  expect(await readEventHead(db)).toEqual({ sequence: 6, oldest: 5 })
})

test("an event that is still to be delivered stays, and all after it", async () => {
  await using database = await testDatabase()
  const { db } = database
  await createWebhook(db, { url: "https://receiver.example/", secret: Buffer.from("sealed") })
  await append(db, 6)
  await numberEvents(db)
  await db
    .updateTable("deliveries")
    .set({ state: "delivered" })
    .where("sequence", "in", [1, 2, 4, 5])
    .execute()

  expect(await removeOldEvents(db, -1)).toBe(2)
  expect(await kept(db)).toEqual([3, 4, 5, 6])
  await db.updateTable("deliveries").set({ state: "failed" }).where("sequence", "=", 3).execute()
  expect(await removeOldEvents(db, -1)).toBe(3)
  expect(await kept(db)).toEqual([6])
  const left = await db.selectFrom("deliveries").select("sequence").execute()
  expect(left).toEqual([{ sequence: 6 }])
})

test("a webhook that is paused holds no event up, and what waits for it goes with the event", async () => {
  await using database = await testDatabase()
  const { db } = database
  const webhook = () => createWebhook(db, { url: "https://receiver.example/", secret: Buffer.from("sealed") })
  const [paused, other] = [await webhook(), await webhook()]
  await append(db, 4)
  await numberEvents(db)
  await updateWebhook(db, paused.id, { enabled: false })
  await db
    .updateTable("deliveries")
    .set({ state: "delivered" })
    .where("webhook_id", "=", other.id)
    .where("sequence", "<", 3)
    .execute()
  const left = () => db.selectFrom("deliveries").select(["webhook_id", "sequence"]).orderBy("id").execute()

  expect(await removeOldEvents(db, -1)).toBe(2)
  expect(await kept(db)).toEqual([3, 4])
  expect((await left()).map(({ sequence }) => sequence)).toEqual([3, 3, 4, 4])

  await updateWebhook(db, other.id, { enabled: false })
  await updateWebhook(db, paused.id, { enabled: true })
  expect(await removeOldEvents(db, -1)).toBe(0)
  await updateWebhook(db, paused.id, { enabled: false })
  expect(await removeOldEvents(db, -1)).toBe(2)
  expect(await left()).toEqual([])
})

test("what is sent again while its event is being removed is sent, and stays until then", async () => {
  await using database = await testDatabase()
  const { db } = database
  const { id: webhookId } = await createWebhook(db, {
    url: "https://receiver.example/",
    secret: Buffer.from("sealed"),
  })
  await append(db, 3)
  await numberEvents(db)
  const { id } = await db
    .selectFrom("deliveries")
    .select("id")
    .where("sequence", "=", 2)
    .executeTakeFirstOrThrow()
  await db.updateTable("deliveries").set({ state: "delivered" }).execute()

  const removing = await inTransaction(db, async (tx) => {
    expect(await resendDelivery(tx, { id, webhookId })).toBe("resent")
    const removed = removeOldEvents(db, -1)
    await endedOrWaiting(db, removed)
    return { removed: removed.catch((error: unknown) => error) }
  })

  expect(await removing.removed).toMatchObject({ table: "deliveries" })
  expect(await removeOldEvents(db, -1)).toBe(1)
  expect(await kept(db)).toEqual([2, 3])
  const pending = await db
    .selectFrom("deliveries")
    .select("sequence")
    .where("state", "=", "pending")
    .execute()
  expect(pending).toEqual([{ sequence: 2 }])
})

test("an event that is being removed is not sent again, and the others of its range are", async () => {
  await using database = await testDatabase()
  const { db } = database
  await append(db, 3)
  await numberEvents(db)
  const { id: webhookId } = await createWebhook(db, {
    url: "https://receiver.example/",
    secret: Buffer.from("sealed"),
  })
  const { signal } = new AbortController()

  const replaying = await inTransaction(db, async (tx) => {
    await tx.deleteFrom("events").where("sequence", "=", 1).execute()
    const replayed = redeliver(db, { webhookId, from: 1, to: 3, what: "all" }, { signal })
    await endedOrWaiting(db, replayed)
    return { replayed }
  })

  expect(await replaying.replayed).toEqual({ outcome: "done", deliveries: 2, lastSequence: 3 })
})

test("the dispatcher removes them", async () => {
  await using database = await testDatabase()
  const { db, url: databaseUrl } = database
  await append(db, 3)
  await numberEvents(db)

  await using _dispatcher = await testDispatcher({
    databaseUrl,
    eventRetentionMs: hourMs,
    clockOffset: "2 hours",
  })

  await expect.poll(() => kept(db)).toEqual([])
})
