import { execFile } from "node:child_process"
import { randomBytes } from "node:crypto"
import { chown, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import type { Disk } from "@stillframe/hypervisors/disks/disks"
import { freezeRawDisks, keepRawDisks, placeRawDisks } from "@stillframe/hypervisors/disks/raw-disks"
import type { DiskConfig } from "@stillframe/hypervisors/launch-config"
import { expect, test } from "vitest"
import { layDisks, storeIn } from "./laid-disks.ts"
import { canReflink, reflinkingGround } from "./reflinking.ts"
import { ground, never, qemu, type Ground } from "./test-vm.ts"

const run = promisify(execFile)
const diskBytes = 1024 ** 2
const vmUser = 64_055

test("a written disk is the VM's own file, a read-only one an image of ours", async () => {
  await using place = await ground()
  const [written, readonly] = [await callersDisk(place, "a.raw"), await callersDisk(place, "b.raw", true)]

  const { dir, disks } = await layDisks(place, [written, readonly])

  expect(disks).toEqual([
    {
      readonly: false,
      virtualSize: diskBytes,
      layers: [{ file: "disk0.raw", format: "raw" }],
      sources: [],
    },
    {
      readonly: true,
      virtualSize: diskBytes,
      layers: [{ file: "disk1.base", format: "raw", sha256: expect.stringMatching(/^[0-9a-f]{64}$/) }],
      sources: [],
    },
  ])
  const own = await stat(join(dir, "disk0.raw"))
  expect([own.mode & 0o777, own.nlink]).toEqual([0o600, 1])
  const image = await stat(join(dir, "disk1.base"))
  expect([image.mode & 0o777, image.nlink]).toEqual([0o444, 2])
  expect((await stat(readonly.path)).nlink).toBe(1)
  await writeFile(join(dir, "disk0.raw"), "the guest's")
  expect(await readFile(written.path)).toHaveLength(diskBytes)
})

test("holes of a caller's disk stay holes, and one that ends within a sector is filled up", async () => {
  await using place = await ground()
  const path = join(place.root, "a.raw")
  await writeFile(path, Buffer.concat([Buffer.alloc(8 * diskBytes), Buffer.from("end")]))

  const { dir } = await layDisks(place, [{ path, format: "raw", readonly: false }])

  const { size, blocks } = await stat(join(dir, "disk0.raw"))
  expect(size).toBe(8 * diskBytes + 512)
  expect(blocks * 512).toBeLessThan(diskBytes)
})

test("a qcow2 disk is not supported, and nothing is made", async () => {
  await using place = await ground()
  const written = await callersDisk(place, "a.raw")
  const path = join(place.root, "b.qcow2")
  await run(qemu.qemuImg, ["create", "-q", "-f", "qcow2", path, "1M"])

  const attempt = layDisks(place, [written, { ...written, path, format: "qcow2" }])

  await expect(attempt).rejects.toMatchObject({
    code: "not_supported",
    message: expect.stringContaining("b.qcow2 is qcow2"),
  })
  expect(await readdir(join(place.root, "vm"))).toEqual([])
})

test("nothing of the callers' files is needed any more", async () => {
  await using place = await ground()
  const [written, readonly] = [await callersDisk(place, "a.raw"), await callersDisk(place, "b.raw", true)]
  const { dir, disks } = await layDisks(place, [written, readonly])

  for (const { path } of [written, readonly]) await writeFile(path, "another")

  for (const { layers } of disks)
    expect(await readFile(join(dir, layers[0]?.file ?? ""))).toHaveLength(diskBytes)
})

test("a read-only disk on another file system is copied, and then nobody's to change", async () => {
  await using place = await ground()
  await using memory = await inMemory()
  const readonly = await callersDisk(memory, "b.raw", true)

  const { dir } = await layDisks(place, [readonly])
  await writeFile(readonly.path, "another")

  expect((await stat(join(dir, "disk0.base"))).mode & 0o222).toBe(0)
  expect(await readFile(join(dir, "disk0.base"))).toHaveLength(diskBytes)
})

test.each([
  ["a file system without reflinks", "shares no blocks", (memory: string) => memory],
  ["a payload on another file system", "another file system", (_: string, disk: string) => disk],
])("on %s a running VM that writes disks is not captured, saying why", async (_, why, payloadRoot) => {
  await using place = await ground()
  await using memory = await inMemory()
  const { dir, disks } = await layDisks(memory, [await callersDisk(memory, "a.raw")])
  const payload = await mkdtemp(join(payloadRoot(memory.root, place.root), "payload-"))

  const attempt = freezeRawDisks(disks, { dir, payload, signal: never })

  await expect(attempt).rejects.toMatchObject({
    code: "not_supported",
    message: expect.stringContaining(why),
  })
  expect(await readdir(payload)).toEqual([])
})

test("a VM that writes no disk needs no reflinks", async () => {
  await using memory = await inMemory()
  const readonly = await callersDisk(memory, "b.raw", true)
  const { dir, disks } = await layDisks(memory, [readonly])
  const payload = await memory.folder("payload")

  const freeze = await freezeRawDisks(disks, { dir, payload, signal: never })
  await freeze.take()
  expect(await readdir(payload)).toEqual([])
  expect(await freeze.finish()).toBe(0)

  expect([freeze.active, freeze.frozen]).toEqual([[], disks])
  expect((await stat(join(payload, "disk0.base"))).ino).toBe((await stat(join(dir, "disk0.base"))).ino)
  await freeze.discard()
  expect(await readdir(payload)).toEqual([])
})

test("the disks of a VM that does not run are kept anywhere, and forks get their own", async () => {
  await using place = await ground()
  await using memory = await inMemory()
  const { dir, disks } = await layDisks(place, [
    await callersDisk(place, "a.raw"),
    await callersDisk(place, "b.raw", true),
  ])
  const content = await readFile(join(dir, "disk0.raw"))

  const payload = await memory.folder("payload")
  await keepRawDisks(disks, { dir, payload, store: storeIn(memory), signal: never })
  await writeFile(join(dir, "disk0.raw"), "the source's")
  const forks = await Promise.all(
    ["one", "two"].map(async (name) => await placed(memory, disks, payload, name)),
  )
  await writeFile(join(forks[0] ?? "", "disk0.raw"), "the fork's")

  expect(await readFile(join(payload, "disk0.raw"))).toEqual(content)
  expect(await readFile(join(forks[1] ?? "", "disk0.raw"))).toEqual(content)
  expect((await stat(join(payload, "disk0.raw"))).mode & 0o222).toBe(0)
  expect((await stat(join(forks[1] ?? "", "disk0.raw"))).mode & 0o777).toBe(0o600)
  expect(await readFile(join(forks[1] ?? "", "disk1.base"))).toHaveLength(diskBytes)
})

test("a disk that was kept already stays as it was kept", async () => {
  await using place = await ground()
  const { dir, disks } = await layDisks(place, [await callersDisk(place, "a.raw")])
  const payload = await place.folder("payload")
  await keepRawDisks(disks, { dir, payload, store: storeIn(place), signal: never })
  const kept = await readFile(join(payload, "disk0.raw"))
  await writeFile(join(dir, "disk0.raw"), "written since")

  await keepRawDisks(disks, { dir, payload, store: storeIn(place), signal: never })

  expect(await readFile(join(payload, "disk0.raw"))).toEqual(kept)
})

test("payloads on another file system share one copy of a read-only disk", async () => {
  await using place = await ground()
  await using memory = await inMemory()
  const { dir, disks } = await layDisks(place, [await callersDisk(place, "b.raw", true)])
  const linking = { dir, store: storeIn(memory), signal: never }
  const payloads = await Promise.all(["one", "two"].map((name) => memory.folder(name)))

  for (const payload of payloads) await keepRawDisks(disks, { ...linking, payload })

  const copies = await Promise.all(payloads.map((payload) => stat(join(payload, "disk0.base"))))
  expect(new Set(copies.map(({ ino }) => ino)).size).toBe(1)
  expect(copies[0]).toMatchObject({ nlink: 3, size: diskBytes })
})

test.skipIf(!canReflink)("where blocks are shared, disks are kept as they are in the pause", async () => {
  await using place = await ground()
  await using inside = await reflinkingGround(place)
  const { dir, disks } = await layDisks(inside, [
    await callersDisk(inside, "a.raw"),
    await callersDisk(inside, "b.raw", true),
  ])
  const payload = await inside.folder("payload")
  const content = randomBytes(diskBytes)
  await writeFile(join(dir, "disk0.raw"), content)
  await chown(join(dir, "disk0.raw"), vmUser, vmUser)

  const freeze = await freezeRawDisks(disks, { dir, payload, signal: never })
  expect(await readdir(payload)).toEqual([])
  await freeze.take()
  expect(await readdir(payload)).toEqual(["disk0.raw"])
  await writeFile(join(dir, "disk0.raw"), "after the pause")
  await freeze.finish()
  const fork = await placed(inside, freeze.frozen, payload, "fork")

  expect(freeze.active).toEqual([join(dir, "disk0.raw")])
  expect((await readdir(payload)).toSorted()).toEqual(["disk0.raw", "disk1.base"])
  expect(await readFile(join(payload, "disk0.raw"))).toEqual(content)
  const { uid, gid, mode } = await stat(join(payload, "disk0.raw"))
  // A clone has its original's owner, who could make it writable again.
  expect({ uid, gid, mode: mode & 0o777 }).toEqual({ uid: 0, gid: 0, mode: 0o444 })
  expect(await readFile(join(fork, "disk0.raw"))).toEqual(content)
})

test.skipIf(!canReflink)("what a failed capture had cloned is taken away, and only that", async () => {
  await using place = await ground()
  await using inside = await reflinkingGround(place)
  const { dir, disks } = await layDisks(inside, [await callersDisk(inside, "a.raw")])
  const payload = await inside.folder("payload")
  const freeze = await freezeRawDisks(disks, { dir, payload, signal: never })
  await freeze.take()

  await freeze.discard()

  expect(await readdir(payload)).toEqual([])
  expect(await readFile(join(dir, "disk0.raw"))).toHaveLength(diskBytes)
})

async function callersDisk(place: Ground, name: string, readonly = false): Promise<DiskConfig> {
  const path = join(place.root, name)
  await writeFile(path, randomBytes(diskBytes), { mode: 0o644 })
  return { path, format: "raw", readonly }
}

async function placed(place: Ground, disks: readonly Disk[], payload: string, name: string): Promise<string> {
  const dir = await place.folder(name)
  await placeRawDisks(disks, { payload, dir, qemuImg: qemu.qemuImg, store: storeIn(place), signal: never })
  return dir
}

/** In a tmpfs, whose files share no blocks. */
async function inMemory(): Promise<Ground> {
  const root = await mkdtemp("/dev/shm/stillframe-disks-")
  return {
    root,
    own: (identity) => identity,
    folder: async (name) => {
      await mkdir(join(root, name), { recursive: true })
      return join(root, name)
    },
    [Symbol.asyncDispose]: async () => await rm(root, { recursive: true }),
  }
}
