import { access, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { makeDirectory } from "./directory.ts"

/**
 * Makes the directory that a setting names, with its parents, and tries that it can be written to. Throws
 * `invalid_request` with one sentence that names the setting and the remedy.
 */
export async function makeOwnDirectory(setting: string, path: string): Promise<void> {
  try {
    await makeDirectory(path)
    const probe = join(path, `.${process.pid}.probe`)
    await writeFile(probe, "", { flag: "w", mode: 0o600 })
    await rm(probe)
  } catch (error) {
    // A full disk is no mistake in a setting: deleting must still be possible.
    if (!isFull(error)) throw unusable(setting, path, error as Error)
  }
}

/**
 * Throws as `makeOwnDirectory` does for a directory that the access `mode` of `node:fs` is refused to, and
 * for a file in its place. An absent one passes, and one whose disk fails: its disk may be away.
 */
export async function assertAccess(setting: string, path: string, mode: number): Promise<void> {
  try {
    // The dot has the kernel refuse a file.
    await access(`${path}/.`, mode)
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException
    if (code !== "ENOENT" && code in reasons) throw unusable(setting, path, error as Error)
  }
}

/**
 * Does `work` in the directory that a setting names, and throws as `makeOwnDirectory` does where that
 * directory refuses it.
 */
export async function inOwnDirectory<T>(setting: string, path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw isRefusalOf(path, error as FileError) ? unusable(setting, path, error as FileError) : error
  }
}

interface FileError extends NodeJS.ErrnoException {
  /** The target of a link, a copy or a rename. */
  readonly dest?: string
}

function isRefusalOf(dir: string, error: FileError): boolean {
  // A write tells no path.
  if (isFull(error)) return true
  const { code = "", syscall, path = "", dest = "" } = error
  // Something else may be missing than the directory.
  if (!(code in reasons) || (code === "ENOENT" && syscall !== "mkdir")) return false
  return [path, dest].some((name) => name.startsWith(dir))
}

/** True for the error of a disk, or of a quota, that is full. */
export function isFull(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException | undefined)?.code
  return code === "ENOSPC" || code === "EDQUOT"
}

/** The error of a file system in words that end in a remedy. */
function reasonOfRefusal(error: NodeJS.ErrnoException): string {
  return reasons[error.code ?? ""] ?? `${error.message}; look at its disk`
}

function unusable(setting: string, path: string, error: NodeJS.ErrnoException): StillframeError {
  return new StillframeError(
    isFull(error) ? "insufficient_storage" : "invalid_request",
    `${setting}: ${path} can't be used: ${reasonOfRefusal(error)}`,
    { cause: error },
  )
}

const notOurs = "this process may not write to it; change its owner or mode, or name another directory"

const reasons: Readonly<Record<string, string>> = {
  ENOTDIR: "it, or a part of its path, is not a directory; name a directory",
  EACCES: notOurs,
  EPERM: notOurs,
  EROFS: "its file system is read-only; mount it for writing, or name another directory",
  ENOSPC: "its disk is full; free some room on it",
  EDQUOT: "its quota is used up; free some room in it, or raise the quota",
  ENOENT: "no directory can be made there; name one on a disk",
  ENAMETOOLONG: "the path is too long; name a shorter one",
  ELOOP: "its links lead in a circle; name a directory",
}
