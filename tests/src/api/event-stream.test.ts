import { appendInstanceEvent, appendSnapshotEvent, numberEvents } from "@stillframe/db/events/events"
import { sql } from "kysely"
import { expect, test } from "vitest"
import { instanceRecord, snapshotRecord } from "../events/records.ts"
import { readEvents, type Frame } from "./event-reader.ts"
import { happen, testApi } from "./test-api.ts"

function ids(frames: readonly Frame[]): number[] {
  return frames.map(({ id }) => Number(id))
}

function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index)
}

test("a stream starts now, and shows each event as the list does, under its sequence and its type", async () => {
  await using api = await testApi()
  await happen(api, 3)
  await using reader = await readEvents(api)

  const opening = await reader.next()
  await happen(api, 2)
  const seen = await reader.until(({ id }) => id === "5")

  const { body: listed } = await api.ask("GET", "/events?after=3")
  expect(opening).toEqual({ retry: "2000", id: "3" })
  expect(seen).toEqual(
    listed.map((event: object) => ({ id: expect.any(String), event: "snapshot.created", data: event })),
  )
  expect(ids(seen)).toEqual([4, 5])
  expect(reader.response.headers).toMatchObject({
    "content-type": "text/event-stream",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
  })
})

test("it goes on after the Last-Event-ID, which counts more than `after`", async () => {
  await using api = await testApi()
  await happen(api, 250)

  await using fromStart = await readEvents(api, "?after=0")
  await using resumed = await readEvents(api, "?after=3", { headers: { "last-event-id": "120" } })

  expect(ids(await fromStart.until(({ id }) => id === "250"))).toEqual(range(1, 250))
  expect(ids(await resumed.until(({ id }) => id === "250"))).toEqual(range(121, 250))
})

test("beside writers and numberers no stream has a gap or a double, be it whole or resumed over and over", async () => {
  await using api = await testApi()
  const writers = 4
  const eventsEach = 100
  const last = writers * eventsEach
  let writing = true

  async function write(): Promise<void> {
    for (let n = 0; n < eventsEach; n += 1)
      await appendSnapshotEvent(api.db, "snapshot.created", snapshotRecord())
  }
  async function number(): Promise<void> {
    for (let done = false; !done;) {
      done = !writing
      if ((await numberEvents(api.db)) > 0) api.waker.wake("numbered")
    }
  }
  async function readWhole(): Promise<number[]> {
    await using reader = await readEvents(api, "?after=0")
    return ids(await reader.until(({ id }) => Number(id) >= last))
  }
  /** Breaks off after every few events. */
  async function readInPieces(events: number): Promise<number[]> {
    const seen = [0]
    while ((seen.at(-1) ?? 0) < last) {
      await using reader = await readEvents(api, "", { headers: { "last-event-id": String(seen.at(-1)) } })
      let left = events
      const piece = await reader.until(
        ({ id, event }) => Number(id) >= last || (event !== undefined && --left === 0),
      )
      seen.push(...ids(piece))
    }
    return seen.slice(1)
  }

  const reading = Promise.all([readWhole(), readInPieces(7), readWhole(), readInPieces(90), readInPieces(31)])
  const numbering = Promise.all([number(), number()])
  await Promise.all(Array.from({ length: writers }, write))
  writing = false
  await numbering

  for (const seen of await reading) expect(seen).toEqual(range(1, last))
})

test("a filter means the same for what was and for what comes, and the same as in the list", async () => {
  await using api = await testApi({ streamHeartbeatMs: 20 })
  const snapshot = snapshotRecord()
  const instance = instanceRecord({ id: snapshot.source_instance_id })
  const happenAll = async (): Promise<void> => {
    await appendSnapshotEvent(api.db, "snapshot.created", snapshot)
    await appendSnapshotEvent(api.db, "snapshot.captured", snapshot)
    await appendInstanceEvent(api.db, "instance.created", instance)
    await appendInstanceEvent(api.db, "instance.created", instanceRecord())
    await happen(api, 1)
  }
  const queries = {
    "": [1, 2, 3, 4, 5],
    "types=snapshot.captured,instance.*": [2, 3, 4],
    "types=snapshot.*": [1, 2, 5],
    [`snapshot_id=${snapshot.id}`]: [1, 2],
    [`instance_id=${instance.id}`]: [1, 2, 3],
    [`instance_id=${instance.id}&types=snapshot.created`]: [1],
  }
  await happenAll()
  const readers = await Promise.all(
    Object.entries(queries).map(async ([query, first]) => ({
      query,
      expected: [...first, ...first.map((sequence) => sequence + 5)],
      reader: await readEvents(api, `?after=0&${query}`),
    })),
  )
  await using whole = await readEvents(api)
  await happenAll()
  await whole.until(({ id }) => id === "10")

  for (const { query, expected, reader } of readers) {
    await using read = reader
    const { body: listed } = await api.ask("GET", `/events?${query}`)
    // A heartbeat says that everything has been looked at, also what comes after the last that matches.
    const seen = await read.until(({ id }) => id === "10")
    expect([query, ids(seen)]).toEqual([query, expected])
    expect(listed.map(({ sequence }: { sequence: number }) => sequence)).toEqual(expected)
  }
})

test("a heartbeat moves a reader on whom no event concerns, and dispatches nothing", async () => {
  await using api = await testApi({ streamHeartbeatMs: 20 })
  await using reader = await readEvents(api, "?after=0&types=instance.deleted")
  await happen(api, 300)

  const seen = await reader.until(({ id }) => id === "300")

  expect(seen).toEqual([])
  expect(await reader.next()).toEqual({ id: "300" })
})

test("a reader that does not read is cut off, and the others see everything", async () => {
  await using api = await testApi({ streamHeartbeatMs: 50 })
  const large = snapshotRecord({ name: "x".repeat(200_000) })
  const last = 100
  await using slow = await readEvents(api)
  await using quick = await readEvents(api)

  const seen: Frame[] = []
  for (let n = 1; n <= last; n += 1) {
    await happen(api, 1, large)
    seen.push(...(await quick.until(({ id }) => id === String(n))))
  }
  // Both have their heartbeats at the same distance, and with one the slow reader is judged.
  for (let beats = 0; beats < 3; beats += 1) await quick.next()

  const seenSlowly = await slow.rest()
  expect(ids(seen)).toEqual(range(1, last))
  expect(slow.response.complete).toBe(false)
  expect(seenSlowly.length).toBeLessThan(last)
  expect(ids(seenSlowly)).toEqual(range(1, seenSlowly.length))
})

test("a reader that is slow and does read sees everything, however far behind", async () => {
  await using api = await testApi({ streamHeartbeatMs: 1_000_000 })
  const large = snapshotRecord({ name: "x".repeat(200_000) })
  await using slow = await readEvents(api)
  for (let n = 0; n < 100; n += 1) await happen(api, 1, large)

  expect(ids(await slow.until(({ id }) => id === "100"))).toEqual(range(1, 100))
})

test("who comes too late is told from where the feed is kept, and goes on from there", async () => {
  await using api = await testApi()
  await happen(api, 8)
  await api.db.deleteFrom("events").where("sequence", "<", 6).execute()
  await api.db.updateTable("event_head").set({ oldest: 6 }).execute()

  await using late = await readEvents(api, "?after=2&types=snapshot.*")
  await using inTime = await readEvents(api, "?after=5")

  const reset = { id: "5", event: "reset", data: { oldest: 6 } }
  const seen = await late.until(({ id }) => id === "8")
  expect(seen[0]).toEqual(reset)
  expect(ids(seen.slice(1))).toEqual([6, 7, 8])
  expect(ids(await inTime.until(({ id }) => id === "8"))).toEqual([6, 7, 8])
})

test("the list refuses who comes too late, and says where it is kept from; without `after` it starts there", async () => {
  await using api = await testApi()
  await happen(api, 8)
  await api.db.deleteFrom("events").where("sequence", "<", 6).execute()
  await api.db.updateTable("event_head").set({ oldest: 6 }).execute()
  const list = async (query: string): Promise<unknown> => {
    const { status, body } = await api.ask("GET", `/events${query}`)
    return status === 200 ? body.map(({ sequence }: { sequence: number }) => sequence) : [status, body]
  }

  const gone = [410, { code: "gone", message: expect.stringContaining("after=5"), oldest: 6 }]
  expect(await list("?after=0")).toEqual(gone)
  expect(await list("?after=4&types=instance.*")).toEqual(gone)
  expect(await list("?after=5")).toEqual([6, 7, 8])
  expect(await list("?after=8")).toEqual([])
  expect(await list("")).toEqual([6, 7, 8])
  await api.db.deleteFrom("events").execute()
  await api.db.updateTable("event_head").set({ oldest: 9 }).execute()
  expect(await list("?after=7")).toEqual([
    410,
    { code: "gone", message: expect.stringContaining("after=8"), oldest: 9 },
  ])
  expect(await list("?after=8")).toEqual([])
})

test("who is ahead of the feed, which was restored from a backup, is told so and misses nothing", async () => {
  await using api = await testApi()
  await happen(api, 8)
  await api.db.deleteFrom("events").where("sequence", "<", 6).execute()
  await api.db.updateTable("event_head").set({ oldest: 6 }).execute()
  const list = async (query: string): Promise<unknown[]> => {
    const { status, body } = await api.ask("GET", `/events${query}`)
    return [status, body]
  }

  const refused = { code: "invalid_request", message: expect.stringMatching(/last event is 8\b.*after=8$/) }
  expect(await list("?after=9")).toEqual([400, refused])
  expect(await list(`?after=${Number.MAX_SAFE_INTEGER}&types=instance.*`)).toEqual([400, refused])
  expect(await list("?after=8")).toEqual([200, []])
  await using ahead = await readEvents(api, "?types=snapshot.*", { headers: { "last-event-id": "12" } })
  await using atHead = await readEvents(api, "?after=8")
  const opening = await ahead.next()
  await happen(api, 1)

  expect(opening).toEqual({ retry: "2000", id: "12" })
  const seen = await ahead.until(({ id }) => id === "9")
  expect(seen[0]).toEqual({ id: "5", event: "reset", data: { oldest: 6 } })
  expect(ids(seen.slice(1))).toEqual([6, 7, 8, 9])
  expect(ids(await atHead.until(({ id }) => id === "9"))).toEqual([9])
})

test("a stream outlives the database's connections", async () => {
  await using api = await testApi()
  await using reader = await readEvents(api)
  await happen(api, 1)
  await reader.until(({ id }) => id === "1")

  await sql`select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()`.execute(api.db)
  await happen(api, 2)

  expect(ids(await reader.until(({ id }) => id === "3"))).toEqual([2, 3])
})
