import { followEvents } from "@stillframe/api/events/follow"
import { openEventTail } from "@stillframe/api/events/tail"
import { openWindow } from "@stillframe/api/events/window"
import type { OwnedDatabase } from "@stillframe/db/client"
import { openWaker } from "@stillframe/db/connection/wake"
import { appendSnapshotEvent, listEvents, numberEvents } from "@stillframe/db/events/events"
import { testDatabase } from "@stillframe/testing/database"
import { sql } from "kysely"
import { expect, test } from "vitest"
import { capturedLog } from "../dispatcher/dispatchers.ts"
import { snapshotRecord } from "./records.ts"

async function happen(db: OwnedDatabase, events: number): Promise<void> {
  for (let n = 0; n < events; n += 1) await appendSnapshotEvent(db, "snapshot.created", snapshotRecord())
  await numberEvents(db)
}

test("what is numbered while a reader's list is under way comes after it", async () => {
  await using database = await testDatabase()
  const { db } = database
  await happen(db, 5)
  const [example] = await listEvents(db, { after: 4, limit: 1 })
  if (example === undefined) throw new Error("there is no event")
  const window = openWindow(5)
  const reading = followEvents(db, window, {
    after: 0,
    filter: { types: ["snapshot.deleted"] },
    moved: async () => {},
  })

  const listed = reading.next()
  // Postgres does not have it, so the list can't have seen it.
  window.append([{ ...example, sequence: 6, type: "snapshot.deleted" }])

  expect((await listed).value).toEqual({ frames: "", position: 5 })
  expect((await reading.next()).value).toEqual({
    frames: expect.stringContaining("id: 6\nevent: snapshot.deleted\n"),
    position: 6,
  })
})

test("the tail goes on by itself when the feed could not be read for a while", async () => {
  await using database = await testDatabase()
  const { db, url } = database
  const waker = await openWaker({ url, onError: () => {} })
  const { log, lines } = capturedLog()
  const stopping = new AbortController()
  const tail = openEventTail({ db, waker, log, stopping: stopping.signal })
  await sql`alter table events rename to hidden`.execute(db)
  const following = tail.follow(0, { wake: () => {}, progress: () => {} })
  await expect.poll(() => lines.length).toBe(1)

  await sql`alter table hidden rename to events`.execute(db)
  await happen(db, 2)

  await expect.poll(() => following.window.head).toBe(2)
  following.stop()
  await waker.close()
})
