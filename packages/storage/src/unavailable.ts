import { StillframeError } from "@stillframe/domain/errors"

/** A `storage_unavailable` error that names the place, the reason and the remedy. */
export function unavailable(
  what: string,
  remedy: string,
  options?: { readonly cause: unknown; readonly said?: string },
): StillframeError {
  return new StillframeError("storage_unavailable", `${what}. ${remedy}`, options)
}

/**
 * The system's own words for an error of a file, which name its path: for the log, and for who starts a
 * process.
 */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** The reason of an error of a file in words that name no path. */
export function plainReason(error: unknown): string {
  return reasons[(error as NodeJS.ErrnoException).code ?? ""] ?? "the system reports an error"
}

const reasons: Readonly<Record<string, string>> = {
  ENOTDIR: "a part of its path is not a directory",
  EISDIR: "it is a directory",
  EACCES: "this process has no right to it",
  EPERM: "this process has no right to it",
  EROFS: "its file system is mounted read-only",
  EIO: "its disk reports an error",
  ESTALE: "its file server has lost it",
  ENOENT: "it is not there",
  ELOOP: "its links lead in a circle",
}
