import { constants } from "node:fs"
import { chmod, chown, copyFile, lstat, open, rename, rm } from "node:fs/promises"
import { basename } from "node:path"
import { StillframeError, toStillframeError } from "@stillframe/domain/errors"

/**
 * Brings a file that a VMM saved to its place, by a copy where that is on another file system: to be called once the guest
 * runs again. Afterwards the file is ours alone. Nothing is synced. Throws `insufficient_storage`, and `hypervisor_failed`
 * for what is no file of its own: a VMM that was broken out of may have left a name of something else there.
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
    await rename(from, to)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EXDEV") throw error
    await copyOpened(from, to)
  }
  // Whoever wrote it can't put another one in its place here.
  const file = await lstat(to)
  if (!file.isFile() || file.nlink !== 1) throw noFileOfItsOwn(from)
  if (process.getuid?.() === 0) await chown(to, 0, 0)
  await chmod(to, 0o600)
}

async function copyOpened(from: string, to: string): Promise<void> {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants
  const file = await open(from, O_RDONLY | O_NOFOLLOW | O_NONBLOCK).catch((error: NodeJS.ErrnoException) => {
    throw error.code === "ELOOP" ? noFileOfItsOwn(from) : error
  })
  try {
    const found = await file.stat()
    if (!found.isFile() || found.nlink !== 1) throw noFileOfItsOwn(from)
    // What was looked at, whatever its name means by now; only Linux has a tmpfs to copy from.
    await copyFile(`/proc/self/fd/${file.fd}`, to, constants.COPYFILE_EXCL)
  } finally {
    await file.close()
  }
}

const noFileOfItsOwn = (path: string): StillframeError =>
  new StillframeError(
    "hypervisor_failed",
    `${basename(path)}, which the VM's process saved, is no file of its own; the process may have been broken out of, so end the VM`,
  )
