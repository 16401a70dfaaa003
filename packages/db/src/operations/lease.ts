import { leaseRenewalMs, leaseTrustedMs } from "@stillframe/domain/operation"
import type { Database } from "../schema.ts"
import { renewLease } from "./operations.ts"

export interface Lease extends Disposable {
  /** Aborted when the lease is gone: cancelled, taken over, or not renewed for two thirds of its time. */
  readonly signal: AbortSignal
  /** How much longer, by this process's monotonic clock, the lease can be trusted. */
  remainingMs(): number
}

/**
 * Renews an operation's lease until it is disposed of. Its age is counted from the moment a renewal was
 * *sent*, so that a slow answer never makes it look younger than the database knows it. A renewal that fails
 * is tried again while time is left.
 */
export function keepLease(
  db: Database,
  operation: { id: string; token: string },
  onRenewalError: (error: unknown) => void,
): Lease {
  const lost = new AbortController()
  let renewedAt = performance.now()
  let timer: NodeJS.Timeout | undefined
  let disposed = false

  const remainingMs = (): number => leaseTrustedMs - (performance.now() - renewedAt)

  async function renew(): Promise<void> {
    const sentAt = performance.now()
    try {
      if (await renewLease(db, operation)) renewedAt = sentAt
      else lost.abort()
    } catch (error) {
      onRenewalError(error)
      if (remainingMs() <= 0) lost.abort()
    }
    schedule()
  }

  function schedule(): void {
    if (disposed || lost.signal.aborted) return
    timer = setTimeout(() => void renew(), leaseRenewalMs)
    // The renewal must not keep the process from ending.
    timer.unref()
  }

  schedule()
  return {
    signal: lost.signal,
    remainingMs,
    [Symbol.dispose]() {
      disposed = true
      clearTimeout(timer)
    },
  }
}
