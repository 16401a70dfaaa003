import { lstat, readdir } from "node:fs/promises"
import { resolve } from "node:path"
import { overlayName, overlayNumber, readLaunched, type Disk } from "./disks.ts"

const statBlockBytes = 512

/**
 * The bytes by which the files of a VM's disks may still grow, running or not: of each disk that its guest
 * writes, the size less the blocks of the active file. A file that snapshots share is written no more, so it
 * counts as an overlay of the whole size, which the next start puts on it. Blocks that a clone shares count
 * as its own. Throws as reading the record of its disks does.
 */
export async function diskGrowth(dir: string): Promise<number> {
  const [disks, names] = await Promise.all([readLaunched(dir), readdir(dir)])
  const files = disks.map((disk, index) => ({ disk, file: resolve(dir, activeFile(disk, index, names)) }))
  const written = files.filter(({ disk }) => !disk.readonly)
  const growths = await Promise.all(written.map(({ disk, file }) => growthOf(disk, file)))
  return growths.reduce((sum, bytes) => sum + bytes, 0)
}

/**
 * The sizes of the disks that a guest writes: by so much they grow at most on top of images that nobody
 * writes.
 */
export function writableBytes(disks: readonly Pick<Disk, "readonly" | "virtualSize">[]): number {
  return disks.reduce((sum, { readonly, virtualSize }) => sum + (readonly ? 0 : virtualSize), 0)
}

async function growthOf({ virtualSize }: Disk, active: string): Promise<number> {
  // A process that was broken out of may have written the record.
  if (!Number.isSafeInteger(virtualSize)) return 0
  const { blocks, mode } = await lstat(active)
  const isSealed = (mode & 0o222) === 0
  return isSealed ? virtualSize : Math.max(0, virtualSize - blocks * statBlockBytes)
}

function activeFile({ layers }: Disk, index: number, names: readonly string[]): string {
  const newest = Math.max(-1, ...names.map((name) => overlayNumber(index, name) ?? -1))
  return newest === -1 ? (layers[0]?.file ?? "") : overlayName(index, newest)
}
