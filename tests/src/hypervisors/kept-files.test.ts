import { chown, link, rename, rm, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { readDisks, type Disk } from "@stillframe/hypervisors/disks"
import { giveSocket } from "@stillframe/hypervisors/own-socket"
import { expect, test } from "vitest"
import { ground } from "./test-vm.ts"

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
