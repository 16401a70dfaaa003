import { once } from "node:events"
import { Worker } from "node:worker_threads"
import { appendSnapshotEvent, numberEvents } from "@stillframe/db/events/events"
import { tagsMax } from "@stillframe/domain/text/tags"
import { sql } from "kysely"
import { expect, test } from "vitest"
import { snapshotRecord } from "../events/records.ts"
import { heldMs } from "./held-loop.ts"
import type { StreamReaders } from "./stream-readers.ts"
import { testApi, token, type TestApi } from "./test-api.ts"

const heldMsMax = 50
const followers = 300
const burst = 20
const long = 1_000

/** A snapshot with the most tags, each of the greatest length. */
const largest = snapshotRecord({
  name: "a".repeat(63),
  tags: Object.fromEntries(
    Array.from({ length: tagsMax }, (_, n) => [`k${n}`.padEnd(128, "k"), "v".repeat(256)]),
  ),
})

/** Makes so many largest events, and numbers them without a word to anybody. */
async function happenLarge(api: TestApi, count: number): Promise<void> {
  await appendSnapshotEvent(api.db, "snapshot.created", largest)
  await sql`
    insert into events (event_id, type, subject_kind, subject_id, data)
    select gen_random_uuid()::text, type, subject_kind, subject_id, data
    from events, generate_series(2, ${count}) where sequence is null`.execute(api.db)
  while ((await numberEvents(api.db)) > 0);
}

interface Readers extends AsyncDisposable {
  /** Resolves when all of them have read up to this event. */
  haveRead(sequence: number): Promise<void>
}

/** Clients in a thread of their own, whose streams are open. */
async function readers(
  api: TestApi,
  query: string,
  { count, read = true }: { count: number; read?: boolean },
): Promise<Readers> {
  const workerData: StreamReaders = {
    url: `${api.api.url}/events/stream${query}`,
    authorizations: Array.from({ length: count }, (_, n) => `Bearer ${token({ sub: `caller-${n % 10}` })}`),
    read,
  }
  const thread = new Worker(new URL("stream-readers.ts", import.meta.url), { workerData })
  let seen = 0
  thread.on("message", (message: object) => {
    if ("seen" in message) seen = Number(message.seen)
  })
  await once(thread, "message")
  return {
    async haveRead(sequence) {
      await expect.poll(() => seen).toBeGreaterThanOrEqual(sequence)
    },
    async [Symbol.asyncDispose]() {
      await thread.terminate()
    },
  }
}

test.for([
  { name: "a burst of the largest events to hundreds of followers", count: followers, events: burst },
  { name: "a feed that has grown long at once", count: 1, events: long },
])("$name does not hold the event loop", async ({ count, events }) => {
  await using api = await testApi()
  await using following = await readers(api, "", { count })
  let last = 0

  const held = await heldMs(async () => {
    await happenLarge(api, events)
    last += events
    api.waker.wake("numbered")
    await following.haveRead(last)
  })

  expect(held).toBeLessThan(heldMsMax)
})

test("a long way of the largest events to readers that read does not hold the event loop", async () => {
  await using api = await testApi()
  await happenLarge(api, long)

  const held = await heldMs(async () => {
    await using following = await readers(api, "?after=0", { count: 5 })
    await following.haveRead(long)
  })

  expect(held).toBeLessThan(heldMsMax)
})

test("nor does one to readers that read nothing, for whom nothing is read either", async () => {
  await using api = await testApi({ streamHeartbeatMs: 20 })
  await happenLarge(api, long)

  const held = await heldMs(async () => {
    await using _standing = await readers(api, "?after=0", { count: 50, read: false })
    await using following = await readers(api, `?after=${long - 100}`, { count: 1 })
    await following.haveRead(long)
  })

  expect(held).toBeLessThan(heldMsMax)
})
