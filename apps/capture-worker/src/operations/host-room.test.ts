import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, test } from "vitest"
import type { HostRoom } from "../worker.ts"
import { savingRoom, withHostRoom } from "./host-room.ts"

const mib = 1024 ** 2
const users = { first: 70_000, last: 70_063, gid: 70_000, confined: false }

async function host() {
  const dataDir = await mkdtemp(join(tmpdir(), "stillframe-room-"))
  return { dataDir, [Symbol.asyncDispose]: () => rm(dataDir, { recursive: true }) }
}

test("what is under way counts until it is done", async () => {
  await using place = await host()
  const room: HostRoom = new Map()
  const worker = { config: { dataDir: place.dataDir, spaceFloorBytes: 0 }, room }
  const all = { bytes: 1024 ** 5, why: "for a test" }
  const one = { instanceId: "one", bytes: 1, why: "for a test" }

  const beside = withHostRoom(worker, one, async () => {
    room.set("other", 1024 ** 5)
    return withHostRoom(worker, { ...one, instanceId: "two" }, async () => "done")
  })

  await expect(beside).rejects.toMatchObject({
    code: "insufficient_storage",
    message: expect.stringMatching(/promised.*1 are needed there, for a test/),
  })
  room.delete("other")
  expect(room.size).toBe(0)
  expect(await withHostRoom(worker, one, async () => room.size)).toBe(1)
  await expect(withHostRoom(worker, { ...all, instanceId: "a" }, async () => "done")).rejects.toThrow(
    "1125899906842624 are needed",
  )
})

test.each([
  { who: "root's", vmUsers: undefined, storageDir: "/proc", bytes: 0 },
  { who: "nobody's, the payload on the same file system", vmUsers: users, storageDir: tmpdir(), bytes: 0 },
  { who: "nobody's, the payload on another", vmUsers: users, storageDir: "/proc", bytes: 64 * mib },
])("a save asks for room beside the pool's where its VM is $who", async ({ vmUsers, storageDir, bytes }) => {
  await using place = await host()
  const tools = { name: "firecracker" as const, binary: "/firecracker", qemuImg: "", vmUsers }

  const asked = await savingRoom({ ...place, storageDir }, { id: "vm", memory_mib: 64 }, tools)

  expect(asked).toMatchObject({ instanceId: "vm", bytes })
})
