import { errorCodes, StillframeError, type ErrorCode } from "@stillframe/domain/errors"
import { isConnectionLoss } from "@stillframe/domain/postgres/connection-loss"
import type { Answer } from "./route.ts"

/**
 * Maps each code to the contract's. The contract has two vocabularies: HTTP's reason phrases for checks
 * before a handler runs, and lower-case words for handlers.
 */
const problems: Record<ErrorCode, { readonly status: number; readonly code: string }> = {
  bad_request: { status: 400, code: "Bad Request" },
  unauthorized: { status: 401, code: "Unauthorized" },
  forbidden: { status: 403, code: "Forbidden" },
  route_not_found: { status: 404, code: "Not Found" },
  method_not_allowed: { status: 405, code: "Method Not Allowed" },
  payload_too_large: { status: 413, code: "Payload Too Large" },
  invalid_request: { status: 400, code: "invalid_request" },
  invalid_snapshot_compression: { status: 400, code: "invalid_snapshot_compression" },
  invalid_compression_delay: { status: 400, code: "invalid_compression_delay" },
  invalid_timeout: { status: 400, code: "invalid_timeout" },
  invalid_awaited_state: { status: 400, code: "invalid_state" },
  not_found: { status: 404, code: "not_found" },
  ambiguous: { status: 409, code: "ambiguous" },
  conflict: { status: 409, code: "conflict" },
  invalid_state: { status: 409, code: "invalid_state" },
  not_supported: { status: 501, code: "not_supported" },
  events_removed: { status: 410, code: "gone" },
  idempotency_in_progress: { status: 409, code: "idempotency_in_progress" },
  idempotency_mismatch: { status: 422, code: "idempotency_mismatch" },
  insufficient_resources: { status: 409, code: "insufficient_resources" },
  limit_reached: { status: 429, code: "too_many_requests" },
  unavailable: { status: 503, code: "unavailable" },
  timeout: { status: 504, code: "timeout" },
  internal_error: { status: 500, code: "internal_error" },
  cancelled: { status: 409, code: "conflict" },
  lease_lost: { status: 503, code: "unavailable" },
  insufficient_storage: { status: 409, code: "insufficient_resources" },
  storage_failed: { status: 500, code: "internal_error" },
  storage_unavailable: { status: 503, code: "storage_unavailable" },
  clock_skew: { status: 503, code: "unavailable" },
  orphaned_instances: { status: 409, code: "conflict" },
  pause_limit_exceeded: { status: 500, code: "internal_error" },
  hypervisor_unavailable: { status: 501, code: "not_supported" },
  hypervisor_failed: { status: 500, code: "internal_error" },
  hypervisor_gone: { status: 500, code: "internal_error" },
  hypervisor_silent: { status: 409, code: "conflict" },
  hypervisor_untrusted: { status: 409, code: "conflict" },
  codec_unavailable: { status: 501, code: "not_supported" },
  corrupted: { status: 409, code: "conflict" },
}

/**
 * The answer for a code. `retry` says whether the same request again can help; clients repeat 409 and 5xx by
 * themselves unless told not to.
 */
export function problem(
  code: ErrorCode,
  message: string,
  { retry = mayRepeat(code), retryAfterMs }: { retry?: boolean; retryAfterMs?: number } = {},
): Answer {
  const { status, code: shown } = problems[code]
  return {
    status,
    // An unforeseen error may name paths or rows: it goes to the log only.
    body: { code: shown, message: code === "internal_error" ? "internal error" : message },
    headers: {
      ...(status === 429 && { "retry-after": String(Math.ceil((retryAfterMs ?? limitRetryMs) / 1_000)) }),
      ...((status === 409 || status >= 500) && { "x-should-retry": String(retry) }),
      ...(retryAfterMs !== undefined && { "retry-after-ms": String(Math.ceil(retryAfterMs)) }),
    },
  }
}

/** A caller's own work or streams, where they fill a limit, end in seconds. */
const limitRetryMs = 5_000

/**
 * True where a client may send the same request again by itself. A full disk stays full until a person acts.
 */
function mayRepeat(code: ErrorCode): boolean {
  return errorCodes[code].retry && code !== "insufficient_storage"
}

/**
 * Work that an answer was held for has failed. A client must not repeat it by itself where that would touch
 * the VM again.
 */
export function failedWork(error: { error_code: ErrorCode | null; error_message: string | null }): Answer {
  const code = error.error_code ?? "cancelled"
  // Without its directory nothing was begun.
  return problem(code, error.error_message ?? cancelledMessage, { retry: code === "storage_unavailable" })
}

const cancelledMessage = "the work was cancelled by another request, such as a DELETE"

/** The members of other libraries' errors that say what is wrong. `limit`: of a body, in bytes. */
interface Foreign {
  readonly status: number
  readonly type: string
  readonly code: string
  readonly limit: number
}

/** Turns any error of a request into one of ours. */
export function thrownProblem(thrown: unknown): StillframeError {
  if (thrown instanceof StillframeError) return thrown
  const { status, type, code, limit } = thrown as Partial<Foreign>
  if (code === diskFull)
    return new StillframeError(
      "insufficient_storage",
      "the database's disk is full: delete snapshots or instances, or free room on that disk; the request changed nothing",
      { cause: thrown },
    )
  if (isConnectionLoss(thrown))
    return new StillframeError("unavailable", "the database can't be reached; try again", { cause: thrown })
  const refusal = databaseRefusals[code ?? ""]
  if (refusal !== undefined) return new StillframeError("unavailable", refusal, { cause: thrown })
  if (status === 413 || type === "entity.too.large")
    return new StillframeError(
      "payload_too_large",
      `the request body is larger than ${(limit ?? 0) / 1024} KiB; send a smaller one`,
    )
  if (status !== undefined && status >= 400 && status < 500)
    return new StillframeError(
      "bad_request",
      `the request can't be read: ${unreadable[type ?? ""] ?? "its path or its body is malformed; correct it"}`,
      { cause: thrown },
    )
  return new StillframeError("internal_error", "internal error", { cause: thrown })
}

/** By the type of the body parser's error. */
const unreadable: Readonly<Record<string, string>> = {
  "encoding.unsupported": "its body is compressed; send it without a Content-Encoding",
  "request.aborted": "its body did not arrive whole; send it again",
  "request.size.invalid": "its body is not as long as Content-Length says; correct the header",
}

const tooManyConflicts =
  "the database ended this request for the sake of others several times; try again later"
/** By the code of Postgres: another moment or an operator may mend these. */
const databaseRefusals: Readonly<Record<string, string>> = {
  "40001": tooManyConflicts,
  "40P01": tooManyConflicts,
  "25006": "the database takes no writes at present; an operator must point DATABASE_URL at the primary",
}

/** Postgres's `disk_full`. */
const diskFull = "53100"
