/**
 * Every code a caller, an event or a row can carry. `retry` says whether doing the very same thing again can help:
 * it decides both the attempts of an operation and the `x-should-retry` header.
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
  // Problems of hosts and workers: a clock that differs from the database's, and files that no instance names.
  clock_skew: { retry: true },
  orphaned_instances: { retry: false },
  pause_limit_exceeded: { retry: false },
  hypervisor_unavailable: { retry: false },
  hypervisor_failed: { retry: true },
  hypervisor_gone: { retry: false },
  // Its process lives and does not answer: it is stopped, hangs, or talks to another program only.
  hypervisor_silent: { retry: false },
  codec_unavailable: { retry: false },
  corrupted: { retry: false },
} as const satisfies Record<string, { retry: boolean }>

export type ErrorCode = keyof typeof errorCodes

/** The one error class. `message` is for people and ends in what they can do; it never carries a secret. */
export class StillframeError extends Error {
  override readonly name = "StillframeError"
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** Turns whatever was thrown into a StillframeError; what is not ours becomes `internal_error` with its message as cause. */
export function toStillframeError(thrown: unknown): StillframeError {
  if (thrown instanceof StillframeError) return thrown
  const code = systemErrorCodes[(thrown as NodeJS.ErrnoException | null)?.code ?? ""] ?? "internal_error"
  return new StillframeError(code, thrown instanceof Error ? thrown.message : String(thrown), {
    cause: thrown,
  })
}

const systemErrorCodes: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: "insufficient_storage",
  EDQUOT: "insufficient_storage",
  EIO: "storage_failed",
  // Only file systems say so: remounted read-only, or a server that has lost the file.
  EROFS: "storage_unavailable",
  ESTALE: "storage_unavailable",
}
