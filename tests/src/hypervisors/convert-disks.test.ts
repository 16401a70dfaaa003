import { execFile } from "node:child_process"
import { readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { convertedBytes, convertToRaw } from "@stillframe/hypervisors/disks/convert-disks"
import { sourceFacts, type Disk } from "@stillframe/hypervisors/disks/disks"
import { expect, test } from "vitest"
import { ground, never, qemu, type Ground } from "./test-vm.ts"

const run = promisify(execFile)
const diskBytes = 64 * 1024 ** 2
const writtenBytes = 1024 ** 2

/**
 * A base of zeros with an overlay, into whose first bytes a guest has written. `named`: what the overlay's
 * header calls its base.
 */
async function chain(place: Ground, { named = "disk0.base" } = {}): Promise<{ dir: string; disk: Disk }> {
  const dir = await place.folder("payload")
  await run("truncate", ["-s", String(diskBytes), join(dir, "disk0.base")])
  const overlay = join(dir, "disk0.0.qcow2")
  await run(qemu.qemuImg, ["create", "-q", "-f", "qcow2", overlay, String(diskBytes)])
  await writeFile(join(dir, "written"), Buffer.alloc(writtenBytes, 5))
  await run(qemu.qemuImg, ["convert", "-n", "-f", "raw", "-O", "qcow2", join(dir, "written"), overlay])
  await run(qemu.qemuImg, ["rebase", "-u", "-F", "raw", "-b", named, overlay])
  const layers: Disk["layers"] = [
    { file: "disk0.0.qcow2", format: "qcow2" },
    { file: "disk0.base", format: "raw" },
  ]
  return { dir, disk: { readonly: false, virtualSize: diskBytes, layers, sources: [] } }
}

test("a chain becomes one sparse raw file with what it held, in no more room than was foreseen", async () => {
  await using place = await ground()
  const { dir, disk } = await chain(place)
  const to = join(place.root, "disk0.raw")

  await convertToRaw(disk, { from: dir, to, qemuImg: qemu.qemuImg, signal: never })

  const { size, blocks } = await stat(to)
  expect(size).toBe(diskBytes)
  expect(blocks * 512).toBeLessThanOrEqual(await convertedBytes([disk], dir))
  expect(await convertedBytes([disk], dir)).toBeLessThan(2 * writtenBytes)
  const bytes = await readFile(to)
  expect(new Set(bytes.subarray(0, writtenBytes))).toEqual(new Set([5]))
  expect(bytes.indexOf(5, writtenBytes)).toBe(-1)
})

test("what a layer's header names is not opened: only the chain that was frozen is read", async () => {
  await using place = await ground()
  const secret = join(place.root, "secret")
  await writeFile(secret, Buffer.alloc(2 * writtenBytes, 9))
  const { dir, disk } = await chain(place, { named: secret })
  const to = join(place.root, "disk0.raw")

  await convertToRaw(disk, { from: dir, to, qemuImg: qemu.qemuImg, signal: never })

  expect((await readFile(to)).includes(9)).toBe(false)
})

test("a link in the place of a caller's file is not followed", async () => {
  await using place = await ground()
  const { dir, disk } = await chain(place)
  const [path, kept] = [join(place.root, "base.raw"), join(place.root, "kept.raw")]
  await rename(join(dir, "disk0.base"), path)
  const layers = disk.layers.with(1, { file: path, format: "raw" })
  const callers: Disk = { ...disk, layers, sources: [{ path, ...(await sourceFacts(path)) }] }
  const to = join(place.root, "disk0.raw")
  const convert = (): Promise<void> =>
    convertToRaw(callers, { from: dir, to, qemuImg: qemu.qemuImg, signal: never })
  await rename(path, kept)
  await symlink(kept, path)

  await expect(convert()).rejects.toMatchObject({ code: "conflict" })
  await expect(stat(to)).rejects.toMatchObject({ code: "ENOENT" })
  await rm(path)
  await rename(kept, path)
  await convert()
  expect((await stat(to)).size).toBe(diskBytes)
})

test("a conversion that is cancelled says so", async () => {
  await using place = await ground()
  const { dir, disk } = await chain(place)
  const to = join(place.root, "disk0.raw")

  const converted = convertToRaw(disk, { from: dir, to, qemuImg: qemu.qemuImg, signal: AbortSignal.abort() })

  await expect(converted).rejects.toMatchObject({ code: "cancelled" })
})
