import { randomUUID } from "node:crypto"
import { chmod, rm, stat, truncate } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { cloneObstacle, tryClone, type Clone } from "./clone-file.ts"
import { allocatedBytes, convertedBytes, convertToRaw, isRawDisk } from "./convert-disks.ts"
import type { DiskFreeze } from "./disk-freeze.ts"
import { sourceFacts, type Disk } from "./disks.ts"
import { fileExists } from "./file-exists.ts"
import type { CheckedDisk } from "./host-paths.ts"
import { linkFiles, linkOrNot } from "./link-files.ts"
import { openOwnFile } from "./own-file.ts"
import { giveToOwnerOf, isSealed } from "./qemu/layers.ts"
import { reflinkFreeze } from "./reflink-freeze.ts"
import { runProgram } from "./run-program.ts"
import { sealCopy } from "./seal-copy.ts"

const rawName = (disk: number): string => `disk${disk}.raw`
const baseName = (disk: number): string => `disk${disk}.base`
const ownerOnly = 0o600
const readableByAll = 0o004

/** Throws `not_supported` naming the first disk that a hypervisor without layers of its own can't open. */
function assertRawDisks(disks: readonly Pick<CheckedDisk, "path" | "format">[]): void {
  const other = disks.find(({ format }) => format !== "raw")
  if (other !== undefined)
    throw new StillframeError(
      "not_supported",
      `${other.path} is ${other.format}, and this hypervisor gets raw disks only; convert it with qemu-img convert -O raw, or launch the VM with qemu`,
    )
}

/**
 * Lays the disks of a new VM in its directory, one raw file each: `disk<k>.raw`, a clone or a copy of the caller's file, for
 * those that the VM writes; `disk<k>.base`, a hard link to it where that is possible, for the others. For a VM that runs
 * `unprivileged` a file that not all may read is copied: its rights are its owner's to give. The caller's files are never
 * written. Throws `not_supported` before anything is made, `conflict` when a file was changed while it was copied,
 * `insufficient_storage`.
 */
export async function layRawDisks(
  checked: readonly CheckedDisk[],
  { dir, unprivileged = false, signal }: { dir: string; unprivileged?: boolean; signal: AbortSignal },
): Promise<Disk[]> {
  assertRawDisks(checked)
  const disks: Disk[] = []
  for (const [index, disk] of checked.entries()) {
    const { readonly, path } = disk
    const link = !unprivileged || ((await stat(path)).mode & readableByAll) !== 0
    disks.push(
      readonly ? await baseOf(disk, index, { dir, link, signal }) : await ownOf(disk, index, dir, signal),
    )
  }
  return disks
}

/**
 * Keeps what a VM's raw disks hold in `payload`, under the same names: the written ones as clones made in the pause, the
 * others linked after it. Throws `not_supported` beforehand where the file system can't clone them: a copy would let the VM
 * stand still for as long as it takes. A VM that writes no disk needs no such file system.
 */
export async function freezeRawDisks(
  disks: readonly Disk[],
  { dir, payload, signal }: { dir: string; payload: string; signal: AbortSignal },
): Promise<DiskFreeze> {
  await using opening = new AsyncDisposableStack()
  const clones: Clone[] = []
  for (const name of writtenNames(disks)) {
    const { path } = opening.use(await openOwnFile(join(dir, name)))
    clones.push({ from: join(dir, name), to: join(payload, name), opened: path })
  }
  const obstacle = await cloneObstacle(clones)
  if (obstacle !== undefined)
    throw new StillframeError(
      "not_supported",
      `the disks of this VM can't be kept while it runs: ${obstacle}; keep DATA_DIR and STORAGE_DIR on one file system that does, such as XFS or Btrfs with reflinks, or take a Stopped snapshot`,
    )
  const freeze = reflinkFreeze(clones, [...disks])
  const opened = opening.move()
  return {
    ...freeze,
    finish: async () => {
      await opened.disposeAsync()
      await linkFiles(unwrittenNames(disks), dir, payload, signal)
      return await freeze.finish()
    },
    discard: async () => {
      await opened.disposeAsync()
      await freeze.discard()
      for (const name of unwrittenNames(disks)) await rm(join(payload, name), { force: true })
    },
  }
}

/**
 * Keeps the disks of a VM that does not run in `payload`, by a copy where they can't be cloned. What a capture has kept there
 * stays: the VM may have written its own since.
 */
export async function keepRawDisks(
  disks: readonly Disk[],
  { dir, payload, signal }: { dir: string; payload: string; signal: AbortSignal },
): Promise<void> {
  await linkFiles(unwrittenNames(disks), dir, payload, signal)
  for (const name of writtenNames(disks)) {
    const to = join(payload, name)
    if ((await fileExists(to)) && (await isSealed(to))) continue
    await using own = await openOwnFile(join(dir, name))
    await cloneOrCopy({ from: join(dir, name), to, opened: own.path }, signal)
    await sealCopy(to)
  }
}

/** How many bytes `placeRawDisks` writes at most into a directory of the file system of `dir`. */
export async function placedBytes(
  disks: readonly Disk[],
  { from, to: dir }: { from: string; to: string },
): Promise<number> {
  const written = disks.filter((disk) => isRawDisk(disk) && !disk.readonly)
  const [name] = writtenNames(written)
  const trial = name !== undefined && { from: join(from, name), to: join(dir, `clone-${randomUUID()}`) }
  const copied = trial && (await cloneObstacle([trial])) !== undefined ? written : []
  const sizes = await Promise.all(copied.map((disk) => allocatedBytes(disk, from)))
  return sizes.reduce((sum, bytes) => sum + bytes, await convertedBytes(disks, from))
}

/**
 * Gives a new VM in `dir` disks of its own with what `payload` has kept, which stays as it is. Chains of layers, such as QEMU's,
 * become single raw files. Resolves with the disks as they are in `dir`. Throws `insufficient_storage`.
 */
export async function placeRawDisks(
  disks: readonly Disk[],
  { payload, dir, qemuImg, signal }: { payload: string; dir: string; qemuImg: string; signal: AbortSignal },
): Promise<Disk[]> {
  const raw = disks.filter(isRawDisk)
  await linkFiles(unwrittenNames(raw), payload, dir, signal)
  for (const name of writtenNames(raw)) {
    await cloneOrCopy({ from: join(payload, name), to: join(dir, name) }, signal)
    await makeOwn(dir, name)
  }
  const placed: Disk[] = []
  for (const [index, disk] of disks.entries()) {
    if (isRawDisk(disk)) placed.push(disk)
    else placed.push(await convertedOf(disk, index, { from: payload, dir, qemuImg, signal }))
  }
  return placed
}

async function convertedOf(
  disk: Disk,
  index: number,
  { dir, ...tools }: { from: string; dir: string; qemuImg: string; signal: AbortSignal },
): Promise<Disk> {
  const name = disk.readonly ? baseName(index) : rawName(index)
  await convertToRaw(disk, { ...tools, to: join(dir, name) })
  await (disk.readonly ? sealCopy(join(dir, name)) : makeOwn(dir, name))
  // Nothing below it is needed any more.
  return { ...disk, layers: [{ file: name, format: "raw" }], sources: [] }
}

const writtenNames = (disks: readonly Disk[]): string[] =>
  disks.flatMap(({ readonly, layers }) => (readonly ? [] : layers.map(({ file }) => file)))

const unwrittenNames = (disks: readonly Disk[]): string[] =>
  disks.flatMap(({ readonly, layers }) => (readonly ? layers.map(({ file }) => file) : []))

async function ownOf(
  { path, virtualSize }: CheckedDisk,
  index: number,
  dir: string,
  signal: AbortSignal,
): Promise<Disk> {
  const name = rawName(index)
  await copyUnchanged({ from: path, to: join(dir, name) }, signal)
  await makeOwn(dir, name)
  // Not every hypervisor opens a file that ends within a sector.
  await truncate(join(dir, name), virtualSize)
  // Nothing of the caller's is needed any more.
  return { readonly: false, virtualSize, layers: [{ file: name, format: "raw" }], sources: [] }
}

async function baseOf(
  { path, virtualSize }: CheckedDisk,
  index: number,
  { dir, link, signal }: { dir: string; link: boolean; signal: AbortSignal },
): Promise<Disk> {
  const name = baseName(index)
  const disk: Disk = { readonly: true, virtualSize, layers: [{ file: name, format: "raw" }], sources: [] }
  if (link && (await linkOrNot(path, join(dir, name))))
    return { ...disk, sources: [{ path, link: name, ...(await sourceFacts(path)) }] }
  await copyUnchanged({ from: path, to: join(dir, name) }, signal)
  await sealCopy(join(dir, name))
  return disk
}

async function copyUnchanged(clone: Clone, signal: AbortSignal): Promise<void> {
  const before = await sourceFacts(clone.from)
  await cloneOrCopy(clone, signal)
  const after = await sourceFacts(clone.from)
  if (after.sizeBytes !== before.sizeBytes || after.mtimeMs !== before.mtimeMs)
    throw new StillframeError(
      "conflict",
      `${clone.from} was changed while it was copied; launch the VM once nobody writes it`,
    )
}

async function cloneOrCopy(clone: Clone, signal: AbortSignal): Promise<void> {
  // A try before this one may have been killed in the middle.
  await rm(clone.to, { force: true })
  if ((await tryClone(clone)) === undefined) return
  await runProgram("cp", ["--sparse=always", "--", clone.opened ?? clone.from, clone.to], { signal })
}

async function makeOwn(dir: string, name: string): Promise<void> {
  await chmod(join(dir, name), ownerOnly)
  await giveToOwnerOf(dir, name)
}
