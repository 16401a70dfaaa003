import { mkdir, mkdtemp, rm, truncate, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { writeDisks } from "@stillframe/hypervisors/disks/disks"
import { createLogger } from "@stillframe/runtime/logger"
import { freeBytes } from "@stillframe/storage/space"
import { expect, test } from "vitest"
import { openDiskGrowths } from "../host/disk-growths.ts"
import { startRoom, withDiskRoom } from "./disk-room.ts"

const tib = 1024 ** 4

async function host({ diskOvercommit }: { diskOvercommit?: number } = {}) {
  const dataDir = await mkdtemp(join(tmpdir(), "stillframe-disk-room-"))
  const lines: string[] = []
  const log = createLogger({
    service: "test",
    level: "warn",
    destination: { write: (line) => void lines.push(line) },
  })
  const config = { dataDir, spaceFloorBytes: 0, diskOvercommit }
  const worker = { config, log, room: new Map<string, number>(), growths: openDiskGrowths(dataDir) }
  return { dataDir, worker, lines, [Symbol.asyncDispose]: () => rm(dataDir, { recursive: true }) }
}

const request = (instanceId: string, growth: number) => ({ instanceId, growth, bytes: 0, why: "for a test" })

/** A VM's directory with a sparse disk of `bytes`. */
async function vm(dataDir: string, id: string, bytes: number, generation = 1): Promise<string> {
  const dir = join(dataDir, "instances", id, String(generation))
  await mkdir(dir, { recursive: true })
  const layers = [{ file: "disk0.raw", format: "raw" as const }]
  await writeDisks(dir, [{ readonly: false, virtualSize: bytes, layers, sources: [] }])
  await writeFile(join(dir, "disk0.raw"), "")
  await truncate(join(dir, "disk0.raw"), bytes)
  return dir
}

test("the newest generation of each VM counts, one without readable disks by nothing", async () => {
  await using place = await host()
  const { dataDir } = place
  await vm(dataDir, "one", 1024, 9)
  await vm(dataDir, "one", 4096, 10)
  await mkdir(join(dataDir, "instances/one/standby"))
  await vm(dataDir, "two", 512)
  await writeFile(join(await vm(dataDir, "damaged", 512), "disks.json"), "{")
  await rm(join(await vm(dataDir, "half gone", 512), "disk0.raw"))
  await mkdir(join(dataDir, "instances/empty"))

  const sums: number[] = []
  using _new = await place.worker.growths.promise("new", 1, (together) => void sums.push(together))

  expect(sums).toEqual([4096 + 512 + 1])
})

test("of two VMs that are made at the same time, and do not fit together, one is refused", async () => {
  await using place = await host({ diskOvercommit: 1 })
  const { worker, dataDir } = place
  const most = Math.floor((await freeBytes(dataDir)) * 0.6)
  const refused = Promise.withResolvers<string>()

  const made = ["one", "other"].map((id) =>
    withDiskRoom(worker, request(id, most), () => refused.promise).catch((error: Error) => {
      refused.resolve(error.message)
      return error
    }),
  )

  expect(await refused.promise).toMatch(/of which DISK_OVERCOMMIT=1 allows .*: delete instances/)
  expect(await Promise.all(made)).toEqual(
    expect.arrayContaining([
      expect.objectContaining({ code: "insufficient_storage" }),
      { result: await refused.promise },
    ]),
  )
  expect(await withDiskRoom(worker, request("next", most), async () => "made")).toEqual({ result: "made" })
})

test("a VM that is started or put back counts once, by what it gets", async () => {
  await using place = await host({ diskOvercommit: 1 })
  const { worker, dataDir } = place
  const most = Math.floor((await freeBytes(dataDir)) * 0.6)
  await vm(dataDir, "again", most)

  const room = await startRoom(worker, { id: "again" })

  expect(room.growth).toBe(most)
  expect(await withDiskRoom(worker, room, async () => "made")).toEqual({ result: "made" })
})

test("room that is promised to others is not free for disks", async () => {
  await using place = await host({ diskOvercommit: 1 })
  const { worker, dataDir } = place
  const free = await freeBytes(dataDir)
  worker.room.set("import", Math.floor(free * 0.5))

  const made = withDiskRoom(worker, request("new", Math.floor(free * 0.7)), async () => "made")

  await expect(made).rejects.toMatchObject({ code: "insufficient_storage" })
})

test("without DISK_OVERCOMMIT growth beyond the free room is a warning, in the log too; a VM without a disk is not judged", async () => {
  await using place = await host()
  const { worker, lines, dataDir } = place
  await vm(dataDir, "large", 8 * tib)

  expect(await withDiskRoom(worker, request("diskless", 0), async () => "made")).toEqual({ result: "made" })
  expect(lines).toEqual([])
  expect(await withDiskRoom(worker, request("small", 1), async () => "made")).toEqual({
    result: "made",
    warning: expect.stringMatching(/may grow by 8 TiB, this VM's by 1 bytes of that/),
  })
  expect(lines.join("")).toMatch(/"instanceId":"small","growthBytes":\d{13},"leftBytes":\d+/)
})
