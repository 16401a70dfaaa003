import { mkdtemp, rm, stat } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, expect, test } from "vitest"
import { openReserve } from "./reserve.ts"

const mib = 1024 ** 2
const log = { info() {}, warn() {}, error() {} }

let dir: string
let file: string

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "stillframe-reserve-"))
  file = join(dir, "reserve")
})

afterEach(() => rm(dir, { recursive: true }))

test("the reserve is kept from what still fills the disk, and given up when the disk fills no further", async () => {
  const free = [1_024 * mib, 12 * mib, 8 * mib, 4 * mib, 0, 0]
  const kept: boolean[] = []
  await using _reserve = openReserve({
    file,
    log,
    async freeBytes() {
      kept.push(await isThere())
      return free[Math.min(kept.length, free.length) - 1] ?? 0
    },
  })

  await expect.poll(() => kept.length, { timeout: 30_000 }).toBeGreaterThan(free.length)

  expect(kept.slice(0, 7)).toEqual([false, true, true, true, true, true, false])
})

test("the reserve is given up at once for a start on a full disk", async () => {
  let free = 1_024 * mib
  await using reserve = openReserve({ file, log, freeBytes: async () => free })
  await reserve.look()
  expect(await isThere()).toBe(true)

  free = 4 * mib
  await reserve.look()

  expect(await isThere()).toBe(false)
})

test("nothing new is created until the reserve is whole and the floor is free beside it", async () => {
  let free = 1_024 * mib
  await using reserve = openReserve({ file, log, freeBytes: async () => free })
  const at = async (mebibytes: number): Promise<string | undefined> => {
    free = mebibytes * mib
    await reserve.look()
    return /less than \d+ MiB/.exec(reserve.problem()?.message ?? "")?.[0]
  }

  expect([await at(192), await isThere()]).toEqual([undefined, true])
  expect(await at(128)).toBe(undefined)
  expect(await at(127)).toBe("less than 128 MiB")
  expect(await at(4)).toBe("less than 192 MiB")
  expect([await at(191), await isThere()]).toEqual(["less than 192 MiB", false])
  expect([await at(192), await isThere()]).toEqual([undefined, true])
  expect(await at(128)).toBe(undefined)
})

test("nothing new is created where the reserve cannot be written, and the log tells it once", async () => {
  const lines: string[] = []
  const note = (_: object, message: string): void => void lines.push(message)
  await using reserve = openReserve({
    file: join(dir, "absent", "reserve"),
    log: { info: note, warn: note, error: note },
    freeBytes: async () => 1_024 * mib,
  })

  await reserve.look()
  await reserve.look()

  expect(reserve.problem()).toMatchObject({ code: "insufficient_storage" })
  expect(lines).toEqual([
    expect.stringContaining("cannot hold the reserve of 64 MiB"),
    "the room on the database's disk is not known, or cannot be kept",
  ])
})

function isThere(): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  )
}
