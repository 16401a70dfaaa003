import { StillframeError } from "@stillframe/domain/errors"

/** `storage_unavailable`: `what` can't be used now, `remedy` says how it can. */
export function unavailable(what: string, remedy: string, cause?: unknown): StillframeError {
  return new StillframeError("storage_unavailable", `${what}. ${remedy}`, { cause })
}

/** The system's own words for an error of a file. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
