import { errorCodes, type ErrorCode } from "./errors.ts"

/** Those that decide which state the instance is in when they end; at most one of them waits or runs. */
export const stateOperationKinds = [
  "launch",
  "stop",
  "start",
  "standby",
  "restore",
  "fork",
  "delete",
] as const

/** Those of which at most one runs per instance. */
export const vmOperationKinds = ["capture", ...stateOperationKinds] as const

/** `compress` and `verify` touch files only. */
export const operationKinds = [...vmOperationKinds, "compress", "verify"] as const
export type OperationKind = (typeof operationKinds)[number]

export const operationStates = ["queued", "running", "done", "failed", "cancelled"] as const
export type OperationState = (typeof operationStates)[number]

/**
 * How often a kind of work is tried and how long it waits in between. A capture pauses the VM, so it gets two
 * tries; a start of a VM gets one, because a caller waits for the answer; a removal of files is tried until
 * it is done.
 */
export const operationAttempts: Readonly<Record<OperationKind, { max: number; backoffMs: number }>> = {
  launch: { max: 1, backoffMs: 0 },
  capture: { max: 2, backoffMs: 1_000 },
  stop: { max: 3, backoffMs: 1_000 },
  start: { max: 1, backoffMs: 0 },
  standby: { max: 2, backoffMs: 1_000 },
  restore: { max: 1, backoffMs: 0 },
  fork: { max: 1, backoffMs: 0 },
  delete: { max: 1_000_000, backoffMs: 2_000 },
  compress: { max: 5, backoffMs: 2_000 },
  verify: { max: 3, backoffMs: 2_000 },
}

const backoffMsMax = 5 * 60_000

/** How long work waits for a directory that is absent, unless a worker sees it come back before. */
const storageWaitMs = 15_000

/** No operation is put off for longer. */
export const retryDelayMsMax = Math.max(backoffMsMax, storageWaitMs)

/**
 * When a failed try may be repeated: milliseconds from now, or undefined when this failure ends the
 * operation. `attempt` counts from 1.
 */
export function retryDelayMs(kind: OperationKind, attempt: number, code: ErrorCode): number | undefined {
  const { max, backoffMs } = operationAttempts[kind]
  // However long it takes. Work with one try has a caller who waits, and is told.
  if (code === "storage_unavailable" && max > 1) return storageWaitMs
  if (attempt >= max || !errorCodes[code].retry) return undefined
  return Math.min(backoffMs * 2 ** Math.min(attempt - 1, 20), backoffMsMax)
}

/** True where a failure uses up an attempt. Without its directory the work was not attempted. */
export function countsAsTry(code: ErrorCode): boolean {
  return code !== "storage_unavailable"
}

/**
 * How long a claim holds without being renewed, by the database's clock. A worker trusts its own for two
 * thirds of it.
 */
export const leaseMs = 30_000
export const leaseRenewalMs = 2_000
export const leaseTrustedMs = (leaseMs * 2) / 3
