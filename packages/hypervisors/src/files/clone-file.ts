import { constants, copyFile, rm } from "node:fs/promises"
import { dirname } from "node:path"

/** A new file `to` that shares its blocks with `from`. Both absolute. */
export interface Clone {
  readonly from: string
  readonly to: string
  /**
   * The path to read where the name `from` may come to mean something else: a path of the same file, opened.
   */
  readonly opened?: string
}

/** Errors of a file system that cannot share blocks. */
const cannotClone: ReadonlySet<string | undefined> = new Set([
  "ENOTSUP",
  "EOPNOTSUPP",
  "EINVAL",
  "ENOSYS",
  "ENOTTY",
])

/** Throws what the system says where it can't: nothing is copied instead. */
export async function cloneFile({ from, to, opened = from }: Clone): Promise<void> {
  await copyFile(opened, to, constants.COPYFILE_FICLONE_FORCE | constants.COPYFILE_EXCL)
}

/**
 * Clones where the file systems can, and says in words why where they can't: then there is no file. Throws
 * any other failure.
 */
export async function tryClone(clone: Clone): Promise<string | undefined> {
  try {
    await cloneFile(clone)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === "EXDEV") return `${dirname(clone.to)} is on another file system than ${clone.from}`
    if (cannotClone.has(code)) return `the file system of ${clone.from} shares no blocks between files`
    throw error
  }
  return undefined
}

/** Why some of these can't be cloned, found out by doing it; undefined where all can. Leaves nothing. */
export async function cloneObstacle(clones: readonly Clone[]): Promise<string | undefined> {
  for (const clone of clones) {
    const obstacle = await tryClone(clone)
    if (obstacle !== undefined) return obstacle
    await rm(clone.to)
  }
  return undefined
}
