import { StillframeError } from "../errors.ts"
import { isConnectionLoss } from "./connection-loss.ts"

export interface OutageLog {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
}

export interface OutageWords {
  /** Such as `the database can't be reached`. */
  readonly lost: string
  /** Absent: its end is not told. */
  readonly back?: string
}

/**
 * Tells the log about trouble that is tried again and again: when it begins, each minute that it lasts, when
 * it ends.
 */
export interface Outage {
  readonly failed: (error: unknown) => void
  readonly worked: () => void
}

const remindMs = 60_000

/**
 * For a lost server: its log lines carry the reason without a stack. `now`: milliseconds of a monotonic
 * clock.
 */
export function openOutage(log: OutageLog, words: OutageWords, now?: () => number): Outage {
  return open(log, words, (error) => ({ reason: reasonOf(error), said: saidOf(error) }), now)
}

/**
 * For repeated work: the outage of a lost server is logged elsewhere. An error in our words is logged as its
 * reason, and any other with its stack.
 */
export function openTrouble(log: OutageLog, words: OutageWords): Outage {
  const trouble = open(log, words, (err) =>
    err instanceof StillframeError ? { code: err.code, reason: err.message } : { err },
  )
  return {
    failed(error) {
      if (!isConnectionLoss(error)) trouble.failed(error)
    },
    worked: () => trouble.worked(),
  }
}

function open(
  log: OutageLog,
  { lost, back }: OutageWords,
  fieldsOf: (error: unknown) => object,
  now: () => number = () => performance.now(),
): Outage {
  let sinceMs: number | undefined
  let toldMs = 0
  let failures = 0

  return {
    failed(error) {
      failures += 1
      const nowMs = now()
      if (sinceMs !== undefined && nowMs - toldMs < remindMs) return
      sinceMs ??= nowMs
      toldMs = nowMs
      log.warn({ ...fieldsOf(error), failures, lastsMs: Math.round(nowMs - sinceMs) }, lost)
    },
    worked() {
      if (sinceMs === undefined) return
      if (back !== undefined) log.info({ failures, lastedMs: Math.round(now() - sinceMs) }, back)
      sinceMs = undefined
      failures = 0
    },
  }
}

function saidOf(error: unknown): string | undefined {
  return error instanceof StillframeError ? error.said : undefined
}

/** An AggregateError, such as that of a host with several addresses, has no message of its own. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (error.message !== "" || !(error instanceof AggregateError)) return error.message
  return error.errors.map(reasonOf).join("; ")
}
