import { mkdtempSync, rmSync } from "node:fs"
import { open } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, expect, test } from "vitest"
import { flushAlong } from "./flush-along.ts"

const folder = mkdtempSync(join(tmpdir(), "codec-flush-"))
afterAll(() => rmSync(folder, { recursive: true }))

test("a failure of the work comes through", async () => {
  await using file = await open(join(folder, "work"), "w")

  await expect(flushAlong(file, Promise.reject(new Error("no more frames")))).rejects.toThrow(
    "no more frames",
  )
})

test("a failure of the sync comes through, but only when nothing uses the file any more", async () => {
  const file = await open(join(folder, "sync"), "w")
  const flushed = Promise.withResolvers<void>()
  const closed = {
    datasync: () => file.datasync().finally(() => flushed.resolve()),
  } as typeof file
  await file.close()
  const work = Promise.withResolvers<void>()
  let settled = false

  const flushing = flushAlong(closed, work.promise).finally(() => (settled = true))
  flushing.catch(() => undefined)
  await flushed.promise
  await new Promise(setImmediate)
  expect(settled).toBe(false)
  work.resolve()

  await expect(flushing).rejects.toMatchObject({ code: "EBADF" })
})
