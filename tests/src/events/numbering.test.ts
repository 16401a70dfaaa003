import { inTransaction, openDatabase } from "@stillframe/db/client"
import {
  appendSnapshotEvent,
  eventsPerBatchMax,
  listEvents,
  numberEvents,
} from "@stillframe/db/events/events"
import { testDatabase } from "@stillframe/testing/database"
import { expect, test } from "vitest"
import { snapshotRecord } from "./records.ts"

const writers = 8
const eventsEach = 40

test("two numberers beside many writers leave no gap, and a reader never sees a smaller number appear", async () => {
  await using database = await testDatabase()
  const { db, url } = database
  const snapshots = Array.from({ length: writers }, () => snapshotRecord())
  const done = { writing: false, numbering: false }

  async function write(snapshot: ReturnType<typeof snapshotRecord>): Promise<void> {
    for (let n = 0; n < eventsEach; n += 1) {
      await inTransaction(db, (tx) =>
        appendSnapshotEvent(tx, "snapshot.created", { ...snapshot, size_bytes: n }),
      )
    }
  }
  async function number(): Promise<void> {
    const own = openDatabase({ url, connectionsMax: 1, onIdleError: () => undefined })
    while ((await numberEvents(own)) > 0 || !done.writing);
    await own.destroy()
  }
  /** Follows the feed as a client does: after the largest number that it has seen. */
  async function read(): Promise<number[]> {
    const seen: number[] = []
    for (;;) {
      const last = done.numbering
      const events = await listEvents(db, { after: seen.at(-1) ?? 0, limit: 7 })
      seen.push(...events.map(({ sequence }) => sequence))
      if (last && events.length === 0) return seen
    }
  }

  const numbered = Promise.all([number(), number()]).then(() => (done.numbering = true))
  const reading = Promise.all([read(), read()])
  await Promise.all(snapshots.map(write))
  done.writing = true
  await numbered

  const dense = Array.from({ length: writers * eventsEach }, (_, index) => index + 1)
  expect(await reading).toEqual([dense, dense])
  for (const { id } of snapshots) {
    const events = await listEvents(db, { after: 0, limit: 1_000, subjectId: id })
    const order = events.map(({ data }) => (data as { size_bytes: number }).size_bytes)
    expect(order).toEqual(Array.from({ length: eventsEach }, (_, index) => index))
  }
})

test("more than one batch is numbered from its oldest on", async () => {
  await using database = await testDatabase()
  const { db } = database
  const snapshot = snapshotRecord()
  const count = eventsPerBatchMax + 2
  for (let n = 1; n <= count; n += 1)
    await appendSnapshotEvent(db, "snapshot.updated", { ...snapshot, size_bytes: n })

  const numbered = [await numberEvents(db), await numberEvents(db)]

  const last = await listEvents(db, { after: eventsPerBatchMax, limit: 10 })
  expect(numbered).toEqual([eventsPerBatchMax, 2])
  expect(last.map(({ sequence, data }) => [sequence, (data as { size_bytes: number }).size_bytes])).toEqual([
    [count - 1, count - 1],
    [count, count],
  ])
})

test("an event shows up once it has its number, and the feed filters by type", async () => {
  await using database = await testDatabase()
  const { db } = database
  await appendSnapshotEvent(db, "snapshot.created", snapshotRecord())
  await appendSnapshotEvent(db, "snapshot.completed", snapshotRecord())

  const before = await listEvents(db, { after: 0, limit: 10 })
  const numbered = [await numberEvents(db), await numberEvents(db)]

  expect(before).toEqual([])
  expect(numbered).toEqual([2, 0])
  const completed = await listEvents(db, { after: 0, limit: 10, types: ["snapshot.completed"] })
  expect(completed.map(({ sequence, type }) => [sequence, type])).toEqual([[2, "snapshot.completed"]])
})

test("what a transaction appended and rolled back never shows up", async () => {
  await using database = await testDatabase()
  const { db } = database

  const rolledBack = inTransaction(db, async (tx) => {
    await appendSnapshotEvent(tx, "snapshot.created", snapshotRecord())
    throw new Error("rolled back")
  })
  await expect(rolledBack).rejects.toThrow("rolled back")
  await appendSnapshotEvent(db, "snapshot.completed", snapshotRecord())
  await numberEvents(db)

  const events = await listEvents(db, { after: 0, limit: 10 })
  expect(events.map(({ sequence, type }) => [sequence, type])).toEqual([[1, "snapshot.completed"]])
})
