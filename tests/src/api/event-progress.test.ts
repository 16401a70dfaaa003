import { appendInstanceEvent, appendSnapshotEvent, numberEvents } from "@stillframe/db/events/events"
import { progressWriter } from "@stillframe/db/operations/progress"
import { startCapture } from "@stillframe/db/snapshots/snapshots"
import { sql } from "kysely"
import { expect, test } from "vitest"
import { instanceRecord, snapshotRecord } from "../events/records.ts"
import { readEvents } from "./event-reader.ts"
import { testApi, type TestApi } from "./test-api.ts"

/** A snapshot that is being captured. */
async function capturing(api: TestApi): Promise<{ id: string; source_instance_id: string }> {
  await api.instance("vm")
  const { body } = await api.ask("POST", "/instances/vm/snapshots", { body: { kind: "Standby" } })
  await startCapture(api.db, body.id)
  return body
}

/** Says how far the work is until disposed of, far more often than it may be told. */
function working(api: TestApi, snapshotId: string, progress: number): Disposable {
  const report = progressWriter(api.db, snapshotId, () => {})
  const timer = setInterval(() => report(progress), 5)
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

test("who follows is told how far the work is, without an id, and with what it takes to draw a bar", async () => {
  await using api = await testApi()
  const snapshot = await capturing(api)
  await using reader = await readEvents(api)
  const opening = await reader.next()
  using _work = working(api, snapshot.id, 0.25)

  const [told] = await reader.until(({ event }) => event === "snapshot.progress")

  expect(opening?.id).toBe("0")
  expect(told).toEqual({
    event: "snapshot.progress",
    data: {
      snapshot_id: snapshot.id,
      source_instance_id: snapshot.source_instance_id,
      status: "capturing",
      compression_state: "none",
      progress: 0.25,
    },
  })
  expect((await api.ask("GET", `/snapshots/${snapshot.id}`)).body.progress).toBe(0.25)
})

test("progress passes the same filters as events, and by type only when it or all of snapshots is asked for", async () => {
  await using api = await testApi()
  const snapshot = await capturing(api)
  const other = snapshotRecord()
  const asked = [
    "types=snapshot.progress",
    "types=snapshot.*",
    `snapshot_id=${snapshot.id}`,
    `instance_id=${snapshot.source_instance_id}`,
  ]
  const notAsked = [
    "types=snapshot.created",
    "types=instance.*",
    `snapshot_id=${other.id}`,
    `instance_id=${other.source_instance_id}`,
  ]
  const open = (query: string) => readEvents(api, `?after=0&${query}`)
  const told = await Promise.all(asked.map(open))
  const untold = await Promise.all(notAsked.map(open))
  {
    using _work = working(api, snapshot.id, 0.5)
    for (const reader of told) {
      await using read = reader
      const seen = await read.until(({ event }) => event === "snapshot.progress")
      expect(seen.at(-1)?.data.progress).toBe(0.5)
    }
  }

  await appendSnapshotEvent(api.db, "snapshot.created", other)
  await appendInstanceEvent(api.db, "instance.created", instanceRecord())
  await numberEvents(api.db)
  api.waker.wake("numbered")

  for (const [index, reader] of untold.entries()) {
    await using read = reader
    const last = index === 1 ? "3" : "2"
    const seen = await read.until(({ id }) => id === last)
    expect(seen.filter(({ event }) => event === "snapshot.progress")).toEqual([])
  }
})

test("a snapshot that has nothing under way any more tells nothing, and words that are none of ours are left out", async () => {
  await using api = await testApi()
  const snapshot = await capturing(api)
  const { body: queued } = await api.ask("POST", "/instances/vm/snapshots", { body: { kind: "Standby" } })
  await using reader = await readEvents(api)
  await reader.next()

  for (const words of ["", "{", "null", "[]", '"a"'])
    await sql`select pg_notify('progress', ${words})`.execute(api.db)
  using _idle = working(api, queued.id, 0.1)
  using _busy = working(api, snapshot.id, 0.2)
  using _later = working(api, snapshot.id, 0.3)

  // A second later they have all been told once more.
  let tellings = 0
  const seen = await reader.until(({ data }) => data?.progress === 0.3 && ++tellings === 2)
  expect(seen.filter(({ data }) => data.snapshot_id !== snapshot.id)).toEqual([])
})
