import type { Stats } from "node:fs"
import { StillframeError } from "@stillframe/domain/errors"
import { openHostFileAt, pathOfDescriptor, type HostFile } from "../../files/host-file.ts"

/**
 * A file of a VM that someone else started: its owner, or a guest that has escaped, may give the name to
 * another one at any moment.
 */
export interface AttachedFile {
  /** Real path. */
  readonly path: string
  /** Device and inode of the file that the VM's QEMU had open by that name. */
  readonly identity: string
}

export async function identityOf(handle: { stat(): Promise<Pick<Stats, "dev" | "ino">> }): Promise<string> {
  const { dev, ino } = await handle.stat()
  return `${dev}:${ino}`
}

/**
 * Opens such a file for all that is read of it. Throws `conflict` when its name leads to anything else by
 * now.
 *
 * QEMU itself opens by path: our overlay when it is added, and its own disk again when `block-commit` begins
 * to write to it. It does so with its user's rights, so a name that leads elsewhere gives nobody more than
 * that user has; a pipe there hangs that VM alone.
 */
export async function openAttachedFile({ path, identity }: AttachedFile): Promise<HostFile> {
  const file = await openHostFileAt(path).catch((cause: unknown) => {
    throw replaced(path, cause)
  })
  try {
    // A directory above it may be a link by now.
    if ((await pathOfDescriptor(file)) === path && (await identityOf(file.handle)) === identity) return file
    throw replaced(path)
  } catch (error) {
    await file[Symbol.asyncDispose]()
    throw error
  }
}

function replaced(path: string, cause?: unknown): StillframeError {
  return new StillframeError(
    "conflict",
    `${path} is no longer the file that the VM uses, or cannot be read. Put that file back, or remove the disk from the VM`,
    { cause },
  )
}
