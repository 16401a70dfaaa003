import { constants } from "node:fs"
import { open, readdir, readFile, rename, rm, writeFile, type FileHandle } from "node:fs/promises"
import { basename } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"

/** A file in a directory that may be the VM's user's, opened. */
export interface OwnFile extends AsyncDisposable {
  /** A path to the examined file, even if its name changes. Valid in all our processes until disposed of. */
  readonly path: string
  /** True if this process's user owns it, so that no VM can have written it. */
  readonly ours: boolean
}

/**
 * Opens a file that a VM's process may have put there, for reading. Throws `hypervisor_failed` for what is no
 * file of its own: a process that was broken out of may have left a name of something else, or of what is
 * never answered.
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

/**
 * Makes an empty file there, for a program of ours to write by its path. Throws `hypervisor_failed` for a
 * name that is taken.
 */
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

export const noFileOfItsOwn = (path: string, cause?: unknown): StillframeError =>
  new StillframeError(
    "hypervisor_failed",
    `${basename(path)} in the VM's directory is a link or special file. The guest may have escaped its VM: stop the instance and restore one of its snapshots`,
    { cause },
  )

export const missingOwnFile = (path: string, cause?: unknown): StillframeError =>
  new StillframeError("corrupted", `${basename(path)} in the VM's directory is missing; ${bringBack}`, {
    cause,
  })

const bringBack =
  "bring it back from a backup, restore the instance from one of its snapshots, or delete the instance"

/**
 * Throws `hypervisor_failed` for a link, a pipe or a device in a VM's directory: a program would follow it,
 * or wait at it for ever.
 */
export async function assertOwnFiles(dir: string): Promise<void> {
  const entries = await readdir(dir, { withFileTypes: true })
  const odd = entries.find((entry) => !entry.isFile() && !entry.isDirectory() && !entry.isSocket())
  if (odd !== undefined) throw noFileOfItsOwn(odd.name)
}

/**
 * A record that we keep in a VM's directory, with whether this process's user wrote it. Throws `corrupted`
 * for what `is` refuses.
 */
export async function readOwnJson<T>(
  path: string,
  is: (value: unknown) => value is T,
): Promise<{ readonly value: T; readonly ours: boolean }> {
  await using record = await openOwnFile(path)
  const value = parsed(await readFile(record.path, "utf8"))
  if (is(value)) return { value, ours: record.ours }
  throw new StillframeError("corrupted", `${basename(path)} in the VM's directory is damaged; ${bringBack}`)
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Elsewhere than on Linux no VM runs as another user. */
function pathOf({ fd }: FileHandle, path: string): string {
  return process.platform === "linux" ? `/proc/${process.pid}/fd/${fd}` : path
}
