import { lstat, readdir, statfs } from "node:fs/promises"
import { join } from "node:path"

/** Left free on a pool whatever is asked: a full disk under the embedded database stops it. */
export const spaceFloorBytes = 2 * 1024 ** 3

/** The bytes that an unprivileged writer may still write to the file system of `path`. */
export async function freeBytes(path: string): Promise<number> {
  const { bavail, bsize } = await statfs(path)
  return bavail * bsize
}

/**
 * Measures a payload, less the files that are left out: `sizeBytes` as files show it, `storedBytes` as blocks
 * on disk, holes left out, and `sharedBytes` those of them in files that have other names too: the VM's,
 * other snapshots', or an image store's.
 */
export async function measureDir(
  dir: string,
  { leaveOut = () => false }: { leaveOut?: (name: string) => boolean } = {},
): Promise<{ sizeBytes: number; storedBytes: number; sharedBytes: number }> {
  const names = (await readdir(dir)).filter((name) => !leaveOut(name))
  const stats = await Promise.all(names.map((name) => lstat(join(dir, name))))
  const blocksOf = (files: typeof stats): number => files.reduce((sum, { blocks }) => sum + blocks * 512, 0)
  return {
    sizeBytes: stats.reduce((sum, { size }) => sum + size, 0),
    storedBytes: blocksOf(stats),
    sharedBytes: blocksOf(stats.filter(({ nlink }) => nlink > 1)),
  }
}
