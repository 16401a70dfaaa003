import { rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { makeDirectory } from "./directory.ts"

/**
 * Makes the directory that a setting names, with its parents, and tries that it can be written to. Throws
 * `invalid_request` with one sentence that names the setting and says what to do.
 */
export async function makeOwnDirectory(setting: string, path: string): Promise<void> {
  try {
    await makeDirectory(path)
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
  ENOTDIR: "it, or a part of its path, is not a directory; name a directory",
  EACCES: "this process may not write to it; change its owner or mode, or name another directory",
  EPERM: "this process may not write to it; change its owner or mode, or name another directory",
  EROFS: "its file system is read-only; mount it for writing, or name another directory",
  ENOENT: "no directory can be made there; name one on a disk",
  ENAMETOOLONG: "the path is too long; name a shorter one",
  ELOOP: "its links lead in a circle; name a directory",
}
