import { appendSnapshotEvent, numberEvents } from "@stillframe/db/events"
import { expect, test } from "vitest"
import { snapshotRecord } from "../events/records.ts"
import { readEvents, type Frame } from "./event-reader.ts"
import { testApi, type TestApi } from "./test-api.ts"

/** Writes and numbers so many events of one snapshot, and wakes whoever waits for them. */
async function happen(api: TestApi, count: number, snapshot = snapshotRecord()): Promise<void> {
  for (let n = 0; n < count; n += 1) await appendSnapshotEvent(api.db, "snapshot.created", snapshot)
  await numberEvents(api.db)
  api.waker.wake("events")
}

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
