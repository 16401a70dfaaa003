/**
 * Every code a caller, an event or a row can carry. `retry` says whether doing the very same thing again can
 * help: it decides both the attempts of an operation and the `x-should-retry` header.
 */
export const errorCodes = {
  // Answers to a request: the contract's vocabulary.
  bad_request: { retry: false },
  unauthorized: { retry: false },
  forbidden: { retry: false },
  route_not_found: { retry: false },
  method_not_allowed: { retry: false },
  payload_too_large: { retry: false },
  invalid_request: { retry: false },
  invalid_snapshot_compression: { retry: false },
  invalid_compression_delay: { retry: false },
  invalid_timeout: { retry: false },
  invalid_awaited_state: { retry: false },
  not_found: { retry: false },
  ambiguous: { retry: false },
  conflict: { retry: false },
  invalid_state: { retry: false },
  not_supported: { retry: false },
  events_removed: { retry: false },
  idempotency_in_progress: { retry: true },
  idempotency_mismatch: { retry: false },
  insufficient_resources: { retry: true },
  // Too much of the caller's own waits already.
  limit_reached: { retry: true },
  unavailable: { retry: true },
  timeout: { retry: true },
  internal_error: { retry: true },
  // Reasons why a piece of work failed.
  cancelled: { retry: false },
  lease_lost: { retry: true },
  insufficient_storage: { retry: true },
  storage_failed: { retry: true },
  // A directory is absent or is not the one that the database means; its files may be whole elsewhere.
  storage_unavailable: { retry: true },
  // Problems of hosts and workers: a clock that differs from the database's, and files that no instance
  // names.
  clock_skew: { retry: true },
  orphaned_instances: { retry: false },
  pause_limit_exceeded: { retry: false },
  hypervisor_unavailable: { retry: false },
  hypervisor_failed: { retry: true },
  hypervisor_gone: { retry: false },
  // Its process lives and does not answer: it is stopped, hangs, or talks to another program only.
  hypervisor_silent: { retry: false },
  // Its process breaks the protocol, as one that its guest has taken over may.
  hypervisor_untrusted: { retry: false },
  codec_unavailable: { retry: false },
  corrupted: { retry: false },
} as const satisfies Record<string, { retry: boolean }>

export type ErrorCode = keyof typeof errorCodes

interface StillframeErrorOptions extends ErrorOptions {
  readonly said?: string | undefined
}

/** The one error class. `message` is for people, ends in a remedy and never contains a secret. */
export class StillframeError extends Error {
  override readonly name = "StillframeError"
  readonly code: ErrorCode
  /** The words of a program or library, which may name paths and command lines: for the log alone. */
  readonly said?: string

  constructor(code: ErrorCode, message: string, { said, ...options }: StillframeErrorOptions = {}) {
    super(message, options)
    this.code = code
    if (said !== undefined) this.said = said
  }
}

/**
 * True where the process or the host has no file descriptor left, which no program or file is to blame for.
 */
export function isOutOfDescriptors(thrown: unknown): boolean {
  const { code = "" } = (thrown ?? {}) as NodeJS.ErrnoException
  return code === "EMFILE" || code === "ENFILE"
}

/**
 * Turns an error of a library or the system into a `StillframeError` with our words; its own are in `said`.
 */
export function toStillframeError(thrown: unknown): StillframeError {
  if (thrown instanceof StillframeError) return thrown
  const { code, message } = systemErrors[(thrown as NodeJS.ErrnoException | null)?.code ?? ""] ?? unforeseen
  return new StillframeError(code, message, {
    cause: thrown,
    said: thrown instanceof Error ? thrown.message : String(thrown),
  })
}

const unforeseen: SystemError = {
  code: "internal_error",
  message: "an unforeseen error stopped the work; the log of the process that did it says which",
}

interface SystemError {
  readonly code: ErrorCode
  readonly message: string
}

const full: SystemError = {
  code: "insufficient_storage",
  message: "the file system is full; free some space and try again",
}
const away: SystemError = {
  code: "storage_unavailable",
  message: "the file system is read-only or unavailable; mount it again for writing",
}
const noDescriptors: SystemError = {
  code: "insufficient_resources",
  message:
    "the host has no file descriptor left for this work; raise the limit of the process (`ulimit -n`, LimitNOFILE) or of the host, and try again",
}
const systemErrors: Readonly<Record<string, SystemError>> = {
  ENOSPC: full,
  EDQUOT: { ...full, message: "the disk quota is used up; raise it or free some space, and try again" },
  EIO: {
    code: "storage_failed",
    message: "the storage reported an error; look at the host's kernel log and check the disk",
  },
  EMFILE: noDescriptors,
  ENFILE: noDescriptors,
  // Only file systems say so: remounted read-only, or a server that has lost the file.
  EROFS: away,
  ESTALE: away,
}
