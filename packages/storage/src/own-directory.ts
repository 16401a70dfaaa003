import { mkdir, rm, stat, writeFile } from "node:fs/promises"
import { dirname, join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"

/**
 * Makes the directory that a setting names, with its parents, and tries that it can be written to. Throws
 * `invalid_request` with one sentence that names the setting and says what to do.
 */
export async function makeOwnDirectory(setting: string, path: string): Promise<void> {
  try {
    await makeWithParents(path)
    const probe = join(path, `.${process.pid}.probe`)
    await writeFile(probe, "", { flag: "w", mode: 0o600 })
    await rm(probe)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    // A full disk is no mistake in a setting: deleting must still be possible.
    if (code === "ENOSPC" || code === "EDQUOT") return
    const reason = reasons[code ?? ""] ?? String(cause)
    throw new StillframeError("invalid_request", `${setting}: ${path} can't be used: ${reason}`, { cause })
  }
}

const reasons: Readonly<Record<string, string>> = {
  EEXIST: "it is not a directory; name a directory",
  ENOTDIR: "a part of the path is not a directory; name a directory",
  EACCES: "this process may not write to it; change its owner or mode, or name another directory",
  EPERM: "this process may not write to it; change its owner or mode, or name another directory",
  EROFS: "its file system is read-only; mount it for writing, or name another directory",
  ENOENT: "no directory can be made there; name one on a disk",
  ENAMETOOLONG: "the path is too long; name a shorter one",
  ELOOP: "its links lead in a circle; name a directory",
}

/** Not by `recursive`: Node asks for ever where a file system such as /proc takes no new directory. */
async function makeWithParents(path: string): Promise<void> {
  if (await isDirectory(path)) return
  const parent = dirname(path)
  if (parent !== path) await makeWithParents(parent)
  try {
    await mkdir(path, { mode: 0o700 })
  } catch (error) {
    // Two processes may start together.
    if ((error as NodeJS.ErrnoException).code !== "EEXIST" || !(await isDirectory(path))) throw error
  }
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false
    throw error
  }
}
