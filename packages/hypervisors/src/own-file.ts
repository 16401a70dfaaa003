import { constants } from "node:fs"
import { open, rename, rm, writeFile, type FileHandle } from "node:fs/promises"
import { basename } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"

/** A file in a directory that may be the VM's user's, opened. */
export interface OwnFile extends AsyncDisposable {
  /** What was looked at, whatever its name means by now. Valid in every process of ours until this is disposed of. */
  readonly path: string
  /** Whether it is this process's user's, so that no process of a VM can have written it. */
  readonly ours: boolean
}

/**
 * Opens a file that a VM's process may have put there, for reading. Throws `hypervisor_failed` for what is no file of its own:
 * a process that was broken out of may have left a name of something else, or of what is never answered.
 */
export async function openOwnFile(path: string): Promise<OwnFile> {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants
  const file = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK).catch((error: NodeJS.ErrnoException) => {
    throw error.code === "ELOOP" || error.code === "ENXIO" ? noFileOfItsOwn(path) : error
  })
  try {
    const found = await file.stat()
    if (!found.isFile() || found.nlink !== 1) throw noFileOfItsOwn(path)
    const ours = found.uid === process.geteuid?.()
    return { path: pathOf(file, path), ours, [Symbol.asyncDispose]: () => file.close() }
  } catch (error) {
    await file.close()
    throw error
  }
}

/** Makes an empty file there, for a program of ours to write by its path. Throws `hypervisor_failed` for a name that is taken. */
export async function makeOwnFile(
  path: string,
): Promise<AsyncDisposable & { readonly path: string; readonly file: FileHandle }> {
  const file = await open(path, "wx", 0o644).catch((error: NodeJS.ErrnoException) => {
    throw error.code === "EEXIST" ? noFileOfItsOwn(path) : error
  })
  return { path: pathOf(file, path), file, [Symbol.asyncDispose]: () => file.close() }
}

/** Writes a file into a directory that may be the VM's user's: never to where a name of his leads. */
export async function writeOwnFile(path: string, text: string): Promise<void> {
  const next = `${path}.new`
  await rm(next, { force: true })
  await writeFile(next, text, { mode: 0o600, flag: "wx" })
  await rename(next, path)
}

export const noFileOfItsOwn = (path: string): StillframeError =>
  new StillframeError(
    "hypervisor_failed",
    `${basename(path)} in the VM's directory is no file of its own; the VM's process may have been broken out of, so end the VM`,
  )

/** Elsewhere than on Linux no VM runs as another user. */
function pathOf({ fd }: FileHandle, path: string): string {
  return process.platform === "linux" ? `/proc/${process.pid}/fd/${fd}` : path
}
