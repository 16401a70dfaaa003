import { constants } from "node:fs"
import { chmod, chown, copyFile, lstat, rename, rm } from "node:fs/promises"
import { toStillframeError } from "@stillframe/domain/errors"
import { tryClone } from "../files/clone-file.ts"
import { noFileOfItsOwn, openOwnFile } from "../files/own-file.ts"

/**
 * Brings a file that a VMM saved to its place, by a copy where that is on another file system: to be called
 * once the guest runs again. Afterwards the file is ours alone. Nothing is synced. Throws
 * `insufficient_storage`, and `hypervisor_failed` for what is no file of its own: a VMM that was broken out
 * of may have left a name of something else there.
 */
export async function bringIn(from: string, to: string): Promise<void> {
  try {
    await move(from, to)
  } catch (error) {
    await rm(to, { force: true })
    throw toStillframeError(error)
  }
}

async function move(from: string, to: string): Promise<void> {
  try {
    if (await cloneOthers(from, to)) await rm(from)
    else await rename(from, to)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EXDEV") throw error
    await copyOpened(from, to)
  }
  // The writer of the file cannot replace it here.
  const file = await lstat(to)
  if (!file.isFile() || file.nlink !== 1) throw noFileOfItsOwn(from)
  if (process.getuid?.() === 0) await chown(to, 0, 0)
  await chmod(to, 0o600)
}

/**
 * True for another user's file that could be cloned. A process that was broken out of may keep it open for
 * writing, which reaches the file under any name, and no clone.
 */
async function cloneOthers(from: string, to: string): Promise<boolean> {
  await using file = await openOwnFile(from)
  return !file.ours && (await tryClone({ from, to, opened: file.path })) === undefined
}

async function copyOpened(from: string, to: string): Promise<void> {
  await using file = await openOwnFile(from)
  await copyFile(file.path, to, constants.COPYFILE_EXCL)
}
