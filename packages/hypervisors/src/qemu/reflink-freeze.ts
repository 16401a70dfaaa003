import { constants, copyFile, rm } from "node:fs/promises"
import { join } from "node:path"
import type { DiskFreeze } from "../disk-freeze.ts"
import { copyName, frozenDisk, sealCopy, type AttachedDisk } from "./attached-disks.ts"

/** What a file system answers that cannot share a file's blocks, or not with that directory. */
const cannotClone: ReadonlySet<string | undefined> = new Set([
  "EXDEV",
  "ENOTSUP",
  "EOPNOTSUPP",
  "EINVAL",
  "ENOSYS",
  "ENOTTY",
])

/**
 * Keeps the disks by sharing their blocks with files in `dir`, inside the pause: measured 0.6 ms for 60 MiB on XFS, where a `cp` process
 * takes 6 ms. Undefined where the file system cannot.
 */
export async function reflinkFreeze(
  disks: readonly AttachedDisk[],
  dir: string,
): Promise<DiskFreeze | undefined> {
  const writable = disks.flatMap(({ readonly, path }, index) =>
    readonly ? [] : [{ path, copy: join(dir, copyName(index)) }],
  )
  const discard = async (): Promise<void> => {
    for (const { copy } of writable) await rm(copy, { force: true })
  }
  for (const { path, copy } of writable) {
    if (!(await canClone(path, copy))) return undefined
  }
  return {
    frozen: await Promise.all(disks.map(frozenDisk)),
    active: writable.map(({ path }) => path),
    take: async () => {
      for (const { path, copy } of writable) await clone(path, copy)
    },
    finish: async () => {
      for (const { copy } of writable) await sealCopy(copy)
      return 0
    },
    discard,
  }
}

async function canClone(path: string, copy: string): Promise<boolean> {
  try {
    await clone(path, copy)
  } catch (error) {
    if (cannotClone.has((error as NodeJS.ErrnoException).code)) return false
    throw error
  }
  await rm(copy)
  return true
}

async function clone(path: string, copy: string): Promise<void> {
  await copyFile(path, copy, constants.COPYFILE_FICLONE_FORCE | constants.COPYFILE_EXCL)
}
