import { chmod, mkdtemp, rm, truncate, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, test } from "vitest"
import { diskGrowth } from "./disk-growth.ts"
import { writeDisks, type Disk } from "./disks.ts"

const mib = 1024 ** 2
const gib = 1024 ** 3

async function vmDirectory(...disks: Disk[]) {
  const dir = await mkdtemp(join(tmpdir(), "stillframe-growth-"))
  await writeDisks(dir, disks)
  return { dir, [Symbol.asyncDispose]: () => rm(dir, { recursive: true }) }
}

function disk(file: string, { readonly = false } = {}): Disk {
  const format = file.endsWith(".qcow2") ? "qcow2" : "raw"
  return { readonly, virtualSize: gib, layers: [{ file, format }], sources: [] }
}

/** A file that shows a whole GiB and takes `bytes` of its disk. */
async function sparse(path: string, bytes: number): Promise<void> {
  await writeFile(path, Buffer.alloc(bytes, 7))
  await truncate(path, gib)
}

test("a sparse disk may grow by its holes, one that is only read by nothing", async () => {
  await using vm = await vmDirectory(disk("disk0.raw"), disk("disk1.base", { readonly: true }))
  await sparse(join(vm.dir, "disk0.raw"), 16 * mib)
  await sparse(join(vm.dir, "disk1.base"), mib)

  expect(await diskGrowth(vm.dir)).toBe(gib - 16 * mib)
})

test("of a chain the newest overlay grows, up to the size of the disk", async () => {
  await using vm = await vmDirectory(disk("disk0.1.qcow2"), disk("disk1.0.qcow2"))
  await writeFile(join(vm.dir, "disk0.1.qcow2"), Buffer.alloc(64 * mib, 7))
  await writeFile(join(vm.dir, "disk0.10.qcow2"), Buffer.alloc(mib, 7))
  await writeFile(join(vm.dir, "disk1.0.qcow2"), Buffer.alloc(2 * mib, 7))

  expect(await diskGrowth(vm.dir)).toBe(2 * gib - 3 * mib)
})

test("a layer that a snapshot has counts as a whole new overlay", async () => {
  await using vm = await vmDirectory(disk("disk0.0.qcow2"))
  await writeFile(join(vm.dir, "disk0.0.qcow2"), Buffer.alloc(mib, 7))
  await chmod(join(vm.dir, "disk0.0.qcow2"), 0o440)

  expect(await diskGrowth(vm.dir)).toBe(gib)
})

test("a disk that takes more than its size cannot shrink the sum", async () => {
  const small = { ...disk("disk0.raw"), virtualSize: mib }
  await using vm = await vmDirectory(small, disk("disk1.raw"))
  await writeFile(join(vm.dir, "disk0.raw"), Buffer.alloc(8 * mib, 7))
  await sparse(join(vm.dir, "disk1.raw"), 0)

  expect(await diskGrowth(vm.dir)).toBe(gib)
})
