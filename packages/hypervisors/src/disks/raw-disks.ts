import { randomUUID } from "node:crypto"
import { chmod, rm, truncate } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { cloneObstacle, tryClone, type Clone } from "../files/clone-file.ts"
import { fileExists } from "../files/file-exists.ts"
import { linkFiles } from "../files/link-files.ts"
import { openOwnFile } from "../files/own-file.ts"
import { isSealed, sealCopy } from "../files/seal-copy.ts"
import { giveToOwnerOf } from "../files/vm-user-files.ts"
import { runProgram } from "../process/run-program.ts"
import { allocatedBytes, convertedBytes, convertToRaw, isRawDisk } from "./convert-disks.ts"
import type { DiskFreeze } from "./disk-freeze.ts"
import { baseName, type Disk, type DiskLayer } from "./disks.ts"
import type { CheckedDisk } from "./host-paths.ts"
import { linkLayers, type ImageStore } from "./image-store.ts"
import { layImages, type Importer } from "./launch-files.ts"
import { reflinkFreeze } from "./reflink-freeze.ts"

const rawName = (disk: number): string => `disk${disk}.raw`
const ownerOnly = 0o600

/** Throws `not_supported` naming the first disk that a hypervisor without layers of its own can't open. */
function assertRawDisks(disks: readonly CheckedDisk[]): void {
  const other = disks.map(({ images: [top] }) => top).find(({ format }) => format !== "raw")
  if (other !== undefined)
    throw new StillframeError(
      "not_supported",
      `${other.file.shown} is ${other.format}, and this hypervisor gets raw disks only; convert it with qemu-img convert -O raw, or launch the VM with qemu`,
    )
}

/**
 * Lays the disks of a new VM in its directory, one raw file each: `disk<k>.raw`, a clone or a copy of the
 * caller's file, for those that the VM writes; `disk<k>.base`, an image of ours, for the others. Throws
 * `not_supported` before anything is made, and what `importImage` throws.
 */
export async function layRawDisks(
  checked: readonly CheckedDisk[],
  { dir, importer }: { dir: string; importer: Importer },
): Promise<Disk[]> {
  assertRawDisks(checked)
  const disks: Disk[] = []
  for (const [index, disk] of checked.entries()) {
    const { readonly, virtualSize } = disk
    const layers = readonly ? await layImages(disk, index, importer) : await ownOf(disk, index, dir, importer)
    disks.push({ readonly, virtualSize, layers, sources: [] })
  }
  return disks
}

/**
 * Keeps what a VM's raw disks hold in `payload`, under the same names: the written ones as clones made in the
 * pause, the others linked after it. Throws `not_supported` beforehand where the file system can't clone
 * them: a copy would let the VM stand still for as long as it takes. A VM that writes no disk needs no such
 * file system.
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
 * Keeps the disks of a VM that does not run in `payload`, by a copy where they can't be cloned. What a
 * capture has kept there stays: the VM may have written its own since.
 */
export async function keepRawDisks(
  disks: readonly Disk[],
  { dir, payload, ...linking }: { dir: string; payload: string; store: ImageStore; signal: AbortSignal },
): Promise<void> {
  const { signal } = linking
  await linkUnwritten(disks, { from: dir, to: payload, ...linking })
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

interface PlaceOptions {
  readonly payload: string
  readonly dir: string
  readonly store: ImageStore
  readonly qemuImg: string
  readonly signal: AbortSignal
}

/**
 * Gives a new VM in `dir` disks of its own with what `payload` has kept, which stays as it is. Chains of
 * layers, such as QEMU's, become single raw files. Resolves with the disks as they are in `dir`. Throws
 * `insufficient_storage`.
 */
export async function placeRawDisks(
  disks: readonly Disk[],
  { payload, dir, qemuImg, ...linking }: PlaceOptions,
): Promise<Disk[]> {
  const { signal } = linking
  const raw = disks.filter(isRawDisk)
  await linkUnwritten(raw, { from: payload, to: dir, ...linking })
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

async function linkUnwritten(
  disks: readonly Disk[],
  place: { from: string; to: string; store: ImageStore; signal: AbortSignal },
): Promise<void> {
  await linkLayers(
    disks.flatMap(({ readonly, layers }) => (readonly ? layers : [])),
    place,
  )
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
  { images: [{ file }], virtualSize }: CheckedDisk,
  index: number,
  dir: string,
  importer: Importer,
): Promise<DiskLayer[]> {
  const name = rawName(index)
  await importer.copy(file, name)
  await makeOwn(dir, name)
  // Not every hypervisor opens a file that ends within a sector.
  await truncate(join(dir, name), virtualSize)
  return [{ file: name, format: "raw" }]
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
