import type { ServerResponse } from "node:http"
import type { OwnedDatabase } from "@stillframe/db/client"
import { deleteWebhook } from "@stillframe/db/webhooks/webhooks"
import { deliveryRetryMs } from "@stillframe/domain/events"
import { testDatabase } from "@stillframe/testing/database"
import { startReceiver } from "@stillframe/testing/receiver"
import { sql } from "kysely"
import { expect, onTestFinished, test, vi } from "vitest"
import { appendEvents, attempts, delivery, webhookTo } from "./deliveries.ts"
import { capturedLog, testDispatcher } from "./dispatchers.ts"

/** From the last attempt to the next, in milliseconds. */
async function nextAfterMs(db: OwnedDatabase): Promise<number> {
  const { rows } = await sql<{ ms: number }>`
    select (extract(epoch from next_attempt_at - (select max(attempted_at) from delivery_attempts)) * 1000)::float8 as ms
    from deliveries`.execute(db)
  return rows[0]?.ms ?? Number.NaN
}

test("a receiver that answers 500 every time is tried on the whole schedule, then given up", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  receiver.answerAll({ status: 500, body: "broken" })
  await webhookTo(db, receiver.url)
  await appendEvents(db, 1)

  let offsetS = 0
  for (const [tried, delayMs] of [...deliveryRetryMs, undefined].entries()) {
    const dispatcher = await testDispatcher({ databaseUrl, clockOffset: `${offsetS} seconds` })
    await expect.poll(() => delivery(db)).toMatchObject({ attempt: tried + 1, response_status: 500 })
    await dispatcher[Symbol.asyncDispose]()
    if (delayMs === undefined) continue
    expect(await delivery(db)).toMatchObject({ state: "pending" })
    // The attempt's own time is not part of the delay.
    expect(await nextAfterMs(db)).toBeGreaterThanOrEqual(delayMs * 0.8)
    expect(await nextAfterMs(db)).toBeLessThan(delayMs * 1.2 + 2_000)
    offsetS += (delayMs / 1_000) * 1.2 + 1
  }

  expect(await delivery(db)).toMatchObject({ state: "failed", error: "answered 500" })
  expect(await attempts(db)).toHaveLength(deliveryRetryMs.length + 1)
  expect(new Set(receiver.requests.map(({ headers }) => headers["webhook-id"])).size).toBe(1)
})

test.each([
  ["in seconds", { "retry-after": "7200" }, 7_200_000],
  [
    "as a date",
    { date: "Sat, 21 Nov 2026 10:00:00 GMT", "retry-after": "Sat, 21 Nov 2026 11:00:00 GMT" },
    3_600_000,
  ],
  ["beyond reason", { "retry-after": "99999999" }, 86_400_000],
  ["sooner than the schedule", { "retry-after": "1" }, 5_000],
])("a receiver may ask %s for a later try, a day later at most", async (_how, headers, ms) => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  receiver.answer({ status: 503, headers })
  await webhookTo(db, receiver.url)
  await appendEvents(db, 1)

  await using _dispatcher = await testDispatcher({ databaseUrl })
  await expect.poll(() => delivery(db)).toMatchObject({ state: "pending", attempt: 1 })

  expect(await nextAfterMs(db)).toBeGreaterThanOrEqual(ms * 0.8)
  expect(await nextAfterMs(db)).toBeLessThan(ms * 1.2 + 2_000)
})

test("a receiver that hangs is cut off, and the attempt says so", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  receiver.answer(() => undefined)
  await webhookTo(db, receiver.url)
  await appendEvents(db, 1)

  await using _dispatcher = await testDispatcher({ databaseUrl, attemptMs: 50 })

  await expect.poll(() => delivery(db)).toMatchObject({ state: "pending", attempt: 1 })
  const [attempt] = await attempts(db)
  expect(attempt).toMatchObject({ response_status: null, error: "no answer within 0.05 s" })
  expect(attempt?.duration_ms).toBeGreaterThanOrEqual(49)
})

test("an attempt may take 15 s", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  receiver.answerAll(() => undefined)
  await webhookTo(db, receiver.url)
  await appendEvents(db, 1)
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"], shouldAdvanceTime: true })
  onTestFinished(() => void vi.useRealTimers())

  await using _dispatcher = await testDispatcher({ databaseUrl })
  await receiver.received(1)
  vi.advanceTimersByTime(15_000)

  await expect.poll(() => delivery(db)).toMatchObject({ attempt: 1, error: "no answer within 15 s" })
})

test("a receiver that resets the connection is tried again", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  receiver.answer((response) => response.socket?.resetAndDestroy())
  await webhookTo(db, receiver.url)
  await appendEvents(db, 1)

  await using _dispatcher = await testDispatcher({ databaseUrl })
  await expect.poll(() => delivery(db)).toMatchObject({ state: "pending", attempt: 1 })
  await using _later = await testDispatcher({ databaseUrl, clockOffset: "10 seconds" })
  await expect.poll(() => delivery(db)).toMatchObject({ state: "delivered", attempt: 2, error: null })

  expect(await attempts(db)).toMatchObject([
    { response_status: null, error: expect.stringMatching(/ECONNRESET|closed/) as string },
    { response_status: 204, error: null },
  ])
})

test("of an answer its first KiB is kept, as text that a database takes", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  const body = Buffer.concat([Buffer.from([0xff, 0x00]), Buffer.from("ä".repeat(2_000))])
  receiver.answer({ status: 200, body })
  await webhookTo(db, receiver.url)
  await appendEvents(db, 1)

  await using _dispatcher = await testDispatcher({ databaseUrl })
  await expect.poll(() => delivery(db)).toMatchObject({ state: "delivered" })

  const [attempt] = await attempts(db)
  expect(attempt?.response_body).toBe(`\uFFFD\uFFFD${"ä".repeat(511)}`)
})

test("an answer without an end is left after 64 KiB, and its status counts", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  let taken = 0
  let left = false
  receiver.answer((response) => {
    const piece = Buffer.alloc(64 * 1_024, "x")
    const send = (): void => {
      while (!response.destroyed && response.write(piece, () => (taken += piece.length)));
    }
    response.on("drain", send).on("close", () => (left = true))
    send()
  })
  await webhookTo(db, receiver.url)
  await appendEvents(db, 1)

  await using _dispatcher = await testDispatcher({ databaseUrl })
  await expect.poll(() => delivery(db)).toMatchObject({ state: "delivered", response_status: 200 })

  await expect.poll(() => left).toBe(true)
  // The kernel's buffers took some more than was read.
  expect(taken).toBeLessThan(16 * 1_024 * 1_024)
  expect((await attempts(db))[0]?.response_body).toBe("x".repeat(1_024))
})

test.each([
  [200, "delivered"],
  [500, "pending"],
])("when a receiver goes away in the middle of the body, its status %d counts", async (status, state) => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  receiver.answer((response) => {
    response.writeHead(status, { "content-length": "1000" })
    response.write("half", () => response.destroy())
  })
  await webhookTo(db, receiver.url)
  await appendEvents(db, 1)

  await using _dispatcher = await testDispatcher({ databaseUrl })

  await expect.poll(() => delivery(db)).toMatchObject({ state, attempt: 1, response_status: status })
  expect((await attempts(db))[0]?.response_body).toBe("half")
})

test.each([301, 308])(
  "a receiver that answers %d has not taken the event, and nobody goes there",
  async (status) => {
    await using database = await testDatabase()
    await using receiver = await startReceiver()
    await using elsewhere = await startReceiver()
    const { db, url: databaseUrl } = database
    receiver.answer({ status, headers: { location: elsewhere.url } })
    await webhookTo(db, receiver.url)
    await appendEvents(db, 1)

    await using _dispatcher = await testDispatcher({ databaseUrl })

    await expect.poll(() => delivery(db)).toMatchObject({ state: "pending", error: `answered ${status}` })
    expect(elsewhere.requests).toEqual([])
  },
)

test("an attempt that fails after its webhook was deleted is no warning", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  const held = Promise.withResolvers<ServerResponse>()
  receiver.answer(held.resolve)
  const { id } = await webhookTo(db, receiver.url)
  await appendEvents(db, 1)
  const { log, lines } = capturedLog()
  await using _dispatcher = await testDispatcher({ databaseUrl }, log)
  const response = await held.promise

  await deleteWebhook(db, id)
  response.destroy()

  await expect.poll(() => lines.join("")).toContain("delivery of a deleted webhook dropped")
  expect(lines.filter((line) => /"level":"(warn|error)"/.test(line))).toEqual([])
})
