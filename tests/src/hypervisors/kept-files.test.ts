import { createHash } from "node:crypto"
import { chown, link, lstat, open, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { readDisks, type Disk } from "@stillframe/hypervisors/disks/disks"
import { linkLayers } from "@stillframe/hypervisors/disks/image-store"
import { bringIn } from "@stillframe/hypervisors/file-vmm/bring-in"
import { linkFile } from "@stillframe/hypervisors/files/link-files"
import { giveSocket } from "@stillframe/hypervisors/process/own-socket"
import { expect, test } from "vitest"
import { storeIn } from "./laid-disks.ts"
import { canReflink, reflinkingGround } from "./reflinking.ts"
import { ground, never } from "./test-vm.ts"

const isRoot = process.getuid?.() === 0
const user = { uid: 2_100_000_001, gid: 2_100_000_001 }

/** A file that a VM's user has made in its VM's directory. */
async function madeByVm(dir: string, name: string, mode = 0o600): Promise<string> {
  const path = join(dir, name)
  await writeFile(path, "of the VM", { mode })
  await chown(path, user.uid, user.gid)
  await chown(dir, user.uid, user.gid)
  return path
}

test.skipIf(!isRoot).for([
  ["only reads", 0o444],
  ["writes", 0o600],
] as const)("a file that its VM's user owns and %s is not shared but copied", async ([, mode]) => {
  await using place = await ground()
  const from = await madeByVm(await place.folder("vm"), "kernel", mode)
  const to = join(await place.folder("payload"), "kernel")

  await linkFile(from, to, never)
  await writeFile(from, "changed")

  const { uid, mode: kept, nlink } = await lstat(to)
  expect([uid, kept & 0o777, nlink]).toEqual([0, 0o444, 1])
  expect(await readFile(to, "utf8")).toBe("of the VM")
})

test.skipIf(!isRoot)("a file of ours in a VM's directory stays shared", async () => {
  await using place = await ground()
  const [dir, payload] = [await place.folder("vm"), await place.folder("payload")]
  await writeFile(join(dir, "kernel"), "ours", { mode: 0o444 })
  await chown(dir, user.uid, user.gid)

  await linkFile(join(dir, "kernel"), join(payload, "kernel"), never)

  expect((await stat(join(payload, "kernel"))).ino).toBe((await stat(join(dir, "kernel"))).ino)
})

test.skipIf(!isRoot)(
  "an image that the store has lost is not stored by the file of a VM's directory",
  async () => {
    await using place = await ground()
    const [dir, payload] = [await place.folder("vm"), await place.folder("payload")]
    await using kept = await open(join(dir, "disk0.base"), "w+")
    await kept.write("image")
    await kept.chmod(0o444)
    await chown(dir, user.uid, user.gid)
    const sha256 = createHash("sha256").update("image").digest("hex")
    const store = storeIn(place)

    const layers = [{ file: "disk0.base", sha256 }]
    await linkLayers(layers, { from: dir, to: payload, store, signal: never })
    await kept.write("changed", 0)

    expect(await readFile(join(store.dir, sha256), "utf8")).toBe("image")
    expect(await readFile(join(payload, "disk0.base"), "utf8")).toBe("image")
  },
)

test.skipIf(!isRoot || !canReflink)(
  "where files share blocks, memory that a VM's process keeps open for writing is brought in as a clone",
  async () => {
    await using place = await ground()
    await using mounted = await reflinkingGround(place)
    const from = await madeByVm(await mounted.folder("vm"), "memory")
    const to = join(await mounted.folder("payload"), "memory")
    await using kept = await open(from, "r+")

    await bringIn(from, to)
    await kept.write("changed")

    expect(await readFile(to, "utf8")).toBe("of the VM")
    expect(await readdir(join(mounted.root, "vm"))).toEqual([])
  },
)

test.skipIf(!isRoot)(
  "a record that a VM's process wrote cannot have a file of the host kept as its disk",
  async () => {
    await using place = await ground()
    const secret = join(place.root, "secret")
    await writeFile(secret, "of somebody else", { mode: 0o600 })
    const { size, mtimeMs, ino } = await stat(secret)
    const source = { path: secret, sizeBytes: size, mtimeMs, inode: ino }
    const disk: Disk = {
      readonly: true,
      virtualSize: 1024,
      layers: [{ file: "disk0.base", format: "raw" }],
      sources: [source],
    }
    const dir = await place.folder("vm")
    const record = await madeByVm(dir, "disks.json")

    await writeFile(record, JSON.stringify([disk]))
    await expect(readDisks(dir, new Map())).rejects.toMatchObject({ code: "corrupted" })
    // As an earlier version left it: by a link in the directory.
    const linked = { ...disk, sources: [{ ...source, link: "disk0.base" }] }
    await writeFile(record, JSON.stringify([linked]))
    expect(await readDisks(dir, new Map())).toEqual([linked])
  },
)

test.skipIf(!isRoot)("a file that takes the name of our socket is not given to a VM's user", async () => {
  await using place = await ground()
  const dir = await place.folder("vm")
  const image = join(place.root, "image")
  await writeFile(image, "of many VMs", { mode: 0o444 })
  await link(image, join(dir, "kernel"))
  await chown(dir, user.uid, user.gid)
  await rename(join(dir, "kernel"), join(dir, "save.sock"))

  expect(() => giveSocket(dir, "save.sock")).toThrow(
    /save.sock in the VM's directory is not the VM's own socket/,
  )

  expect((await stat(image)).uid).toBe(0)
  await rm(dir, { recursive: true })
})
