import { inTransaction, openDatabase, type OwnedDatabase } from "@stillframe/db/client"
import { numberAndClaim, perWebhookMax, releaseDeliveries } from "@stillframe/db/webhooks/deliveries"
import { recordAttempts } from "@stillframe/db/webhooks/delivery-outcomes"
import { lockWebhook } from "@stillframe/db/webhooks/webhooks"
import { testDatabase } from "@stillframe/testing/database"
import { startReceiver, type Respond } from "@stillframe/testing/receiver"
import { sql } from "kysely"
import { expect, test } from "vitest"
import { appendEvents, attempts, claimDeliveries, delivery, webhookTo } from "./deliveries.ts"
import { testDispatcher } from "./dispatchers.ts"

const hang: Respond = () => undefined

function states(db: OwnedDatabase) {
  return db.selectFrom("deliveries").select(["state", "attempt", "claimed_until"]).orderBy("id").execute()
}

test("a receiver that hangs holds its own room only, however many dispatchers there are", async () => {
  await using database = await testDatabase()
  await using hanging = await startReceiver()
  await using quick = await startReceiver()
  const { db, url: databaseUrl } = database
  hanging.answerAll(hang)
  await webhookTo(db, hanging.url)
  await webhookTo(db, quick.url)
  await appendEvents(db, 300)

  await using _one = await testDispatcher({ databaseUrl })
  await using _other = await testDispatcher({ databaseUrl })

  await quick.received(300)
  await hanging.received(perWebhookMax)
  await expect
    .poll(async () => (await states(db)).filter(({ state }) => state === "delivered").length)
    .toBe(300)
  expect(hanging.requests.length).toBe(perWebhookMax)
  expect((await states(db)).filter(({ claimed_until }) => claimed_until !== null).length).toBe(perWebhookMax)
})

test("many receivers that hang leave a dispatcher room for one that does not, and it is given back", async () => {
  await using database = await testDatabase()
  await using hanging = await startReceiver()
  await using quick = await startReceiver()
  const { db, url: databaseUrl } = database
  hanging.answerAll(hang)
  for (let n = 0; n < 10; n += 1) await webhookTo(db, hanging.url)
  await appendEvents(db, perWebhookMax)
  await using _dispatcher = await testDispatcher({ databaseUrl })
  await hanging.received(10 * perWebhookMax)

  const { id } = await webhookTo(db, quick.url)
  await appendEvents(db, 300)

  const delivered = db
    .selectFrom("deliveries")
    .select("id")
    .where("webhook_id", "=", id)
    .where("state", "=", "delivered")
  await expect.poll(() => delivered.execute()).toHaveLength(300)
  expect(hanging.requests.length).toBe(10 * perWebhookMax)
})

test("a webhook with nothing but failures gets less room", async () => {
  await using database = await testDatabase()
  const { db } = database
  await webhookTo(db, "https://receiver.example")
  await appendEvents(db, 40)
  await db.updateTable("webhooks").set({ failing_since: new Date() }).execute()

  const claimed = await claimDeliveries(db, 100)

  expect(claimed.length).toBe(2)
  expect(await claimDeliveries(db, 100)).toEqual([])
})

test("webhooks take turns where there is less room than they want, however long one has waited", async () => {
  await using database = await testDatabase()
  const { db } = database
  const webhooks = [await webhookTo(db, "https://a.example")]
  await appendEvents(db, 20)
  for (const name of ["b", "c"]) webhooks.push(await webhookTo(db, `https://${name}.example`))
  await appendEvents(db, 20)

  const claimed = await claimDeliveries(db, 6)

  const sequences = webhooks.map(({ id }) =>
    claimed.filter(({ webhookId }) => webhookId === id).map(({ sequence }) => sequence),
  )
  expect(sequences).toEqual([
    [1, 2],
    [21, 22],
    [21, 22],
  ])
})

test("nobody waits for a dispatcher that claims: its webhook is left to it, the others are not", async () => {
  await using database = await testDatabase()
  const { db } = database
  const url = new URL(database.url)
  url.searchParams.set("options", "-c lock_timeout=1s")
  const beside = openDatabase({ url: url.href, onIdleError: () => {} })
  const [held, free] = [await webhookTo(db, "https://a.example"), await webhookTo(db, "https://b.example")]
  await appendEvents(db, 3)

  const claimed = await inTransaction(db, async (tx) => {
    await lockWebhook(tx, held.id)
    return claimDeliveries(beside, 10)
  })

  expect(claimed.map(({ webhookId }) => webhookId)).toEqual([free.id, free.id, free.id])
  await beside.destroy()
})

test("what is to be tried later is not taken along with what is due", async () => {
  await using database = await testDatabase()
  const { db } = database
  await webhookTo(db, "https://receiver.example")
  await appendEvents(db, 2)
  await db
    .updateTable("deliveries")
    .set({ next_attempt_at: sql<Date>`clock() + interval '5 seconds'` })
    .where("sequence", "=", 1)
    .execute()

  expect((await claimDeliveries(db, 10)).map(({ sequence }) => sequence)).toEqual([2])
})

test("dispatchers that claim beside each other take nothing twice and no webhook's room twice", async () => {
  await using database = await testDatabase()
  const { db } = database
  for (const name of ["a", "b", "c"]) await webhookTo(db, `https://${name}.example`)
  await appendEvents(db, 60)

  const claims = await Promise.all(Array.from({ length: 40 }, () => claimDeliveries(db, 5)))

  const claimed = claims.flat()
  expect(new Set(claimed.map(({ id }) => id)).size).toBe(claimed.length)
  for (const ofOne of Map.groupBy(claimed, ({ webhookId }) => webhookId).values()) {
    expect(ofOne.length).toBeLessThanOrEqual(perWebhookMax)
  }
})

test("what a dispatcher that died had claimed is due again after the claim's time", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  await webhookTo(db, receiver.url)
  await appendEvents(db, 1)
  await claimDeliveries(db, 1)

  expect(await claimDeliveries(db, 1)).toEqual([])
  await using _later = await testDispatcher({ databaseUrl, clockOffset: "1 minute" })

  await expect.poll(() => delivery(db)).toMatchObject({ state: "delivered", attempt: 1 })
})

test("a claim lasts longer than the 15 s that an attempt may take", async () => {
  await using database = await testDatabase()
  const { db, url } = database
  await webhookTo(db, "https://receiver.example")
  await appendEvents(db, 1)
  await claimDeliveries(db, 1)
  const claimedAfter = async (clockOffset: string): Promise<number> => {
    const later = openDatabase({ url, clockOffset, onIdleError: () => {} })
    const claimed = await claimDeliveries(later, 1)
    await later.destroy()
    return claimed.length
  }

  expect(await claimedAfter("16 seconds")).toBe(0)
  expect(await claimedAfter("20 seconds")).toBe(1)
})

test("a dispatcher that is stopped gives back what it was about to deliver, uncounted", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  receiver.answer(hang)
  await webhookTo(db, receiver.url)
  await appendEvents(db, 1)

  const first = await testDispatcher({ databaseUrl })
  await receiver.received(1)
  await first[Symbol.asyncDispose]()
  expect(await states(db)).toEqual([{ state: "pending", attempt: 0, claimed_until: null }])
  await using _second = await testDispatcher({ databaseUrl })

  await expect.poll(() => delivery(db)).toMatchObject({ state: "delivered", attempt: 1 })
  expect(receiver.requests.length).toBe(2)
})

test("a claim that is somebody else's by now is not given back", async () => {
  await using database = await testDatabase()
  const { db } = database
  await webhookTo(db, "https://receiver.example")
  await appendEvents(db, 1)
  const late = await claimDeliveries(db, 1)
  await db
    .updateTable("deliveries")
    .set({ claimed_until: new Date(0) })
    .execute()
  expect(await claimDeliveries(db, 1)).toHaveLength(1)

  await releaseDeliveries(db, late)

  expect(await claimDeliveries(db, 1)).toEqual([])
})

test("a success counts also when the claim is over, a failure does not", async () => {
  await using database = await testDatabase()
  const { db } = database
  await webhookTo(db, "https://receiver.example")
  await appendEvents(db, 2)
  const late = await claimDeliveries(db, 2)
  await db
    .updateTable("deliveries")
    .set({ claimed_until: new Date(0) })
    .execute()
  await claimDeliveries(db, 2)

  await recordAttempts(db, [
    { delivery: late[0]!, outcome: { delivered: true, durationMs: 1, responseStatus: 204 } },
    { delivery: late[1]!, outcome: { delivered: false, durationMs: 1, error: "reset", retryMs: 5_000 } },
  ])

  expect(await states(db)).toMatchObject([
    { state: "delivered", attempt: 1, claimed_until: null },
    { state: "pending", attempt: 0, claimed_until: expect.any(Date) as Date },
  ])
  expect(await attempts(db)).toMatchObject([{ response_status: 204 }, { error: "reset" }])
})

test("pending deliveries of a webhook that its owner disabled wait until it is enabled", async () => {
  await using database = await testDatabase()
  const { db } = database
  await webhookTo(db, "https://receiver.example")
  await appendEvents(db, 3)
  await db.updateTable("webhooks").set({ enabled: false }).execute()

  const whileDisabled = await claimDeliveries(db, 10)
  await db.updateTable("webhooks").set({ enabled: true }).execute()

  expect(whileDisabled).toEqual([])
  expect((await claimDeliveries(db, 10)).length).toBe(3)
})

test("what was committed below a floor is missed by turns that start there, and found by one that does not", async () => {
  await using database = await testDatabase()
  const { db } = database
  await webhookTo(db, "https://receiver.example")
  await appendEvents(db, 2)
  const setFirst = (state: "delivered" | "pending") =>
    db.updateTable("deliveries").set({ state }).where("sequence", "=", 1).execute()

  await setFirst("delivered")
  const { deliveries, floors } = await numberAndClaim(db, 10)
  await setFirst("pending")

  expect(deliveries.map(({ sequence }) => sequence)).toEqual([2])
  expect((await numberAndClaim(db, 10, floors)).deliveries).toEqual([])
  expect((await claimDeliveries(db, 10)).map(({ sequence }) => sequence)).toEqual([1])
})
