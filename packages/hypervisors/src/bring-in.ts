import { constants } from "node:fs"
import { chmod, chown, copyFile, rename, rm } from "node:fs/promises"
import { dirname, join } from "node:path"
import { toStillframeError } from "@stillframe/domain/errors"
import type { SavedFile } from "./saved-files.ts"

/**
 * Brings what a save left elsewhere into its directory, and removes the place where it lay. To be called once the guest runs
 * again: it copies where the file system is another. What it brings is ours, and is not synced. Throws `insufficient_storage`.
 */
export async function bringIn(files: readonly SavedFile[], dir: string): Promise<void> {
  try {
    for (const { name, staged } of files) {
      if (staged === undefined) continue
      await move(staged, join(dir, name))
    }
  } catch (error) {
    throw toStillframeError(error)
  } finally {
    for (const { staged } of files)
      if (staged !== undefined) await rm(dirname(staged), { recursive: true, force: true })
  }
}

async function move(from: string, to: string): Promise<void> {
  try {
    await rename(from, to)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EXDEV") throw error
    await copyFile(from, to, constants.COPYFILE_EXCL)
  }
  // It may have been written by the VM's user, who must not write it again.
  if (process.getuid?.() === 0) await chown(to, 0, 0)
  await chmod(to, 0o600)
}
