import type { OwnedDatabase } from "@stillframe/db/client"
import { countOpenCaptures, type CapturesOf } from "@stillframe/db/snapshots/open-captures"
import { StillframeError } from "@stillframe/domain/errors"
import { LRUCache } from "lru-cache"

/** How many captures may wait or run at a time. */
export interface CaptureLimits {
  readonly perInstance: number
  readonly perHost: number
  /** Counted for all tokens with the same `sub`, or for one token without it. */
  readonly perCaller: number
}

/** Hours of work for a host: far more than any schedule has open. */
export const defaultCaptureLimits: CaptureLimits = { perInstance: 1_000, perHost: 10_000, perCaller: 5_000 }

export interface RequestedCapture {
  readonly instanceId: string
  readonly queue: string
  readonly caller: string
}

/** Throws `limit_reached` when a limit allows no further capture. */
export type AdmitCapture = (requested: RequestedCapture) => Promise<void>

/**
 * The database is asked once in this time for each count; in between the process counts what it admits
 * itself.
 */
const countedForMs = 1_000
const countsMax = 10_000

interface Count {
  readonly counted: Promise<number>
  /** Admitted since. */
  admitted: number
}

/**
 * Keeps a process's creates within the limits. Creates pay for a count only once a second. Other processes'
 * creates of that second, and creates that are not committed yet, may exceed a limit by their number.
 */
export function captureLimits(
  db: OwnedDatabase,
  { perInstance, perHost, perCaller }: CaptureLimits = defaultCaptureLimits,
): AdmitCapture {
  const counts = new LRUCache<string, Count>({ max: countsMax, ttl: countedForMs })

  function countOf(of: CapturesOf, limit: number): Count {
    const key = JSON.stringify(of)
    const known = counts.get(key)
    if (known !== undefined) return known
    const count = { counted: countOpenCaptures(db, of, limit), admitted: 0 }
    counts.set(key, count)
    // A failure is this request's alone.
    count.counted.catch(() => counts.delete(key))
    return count
  }

  return async ({ instanceId, queue, caller }) => {
    const limits = [
      {
        of: { instanceId },
        limit: perInstance,
        owner: "this instance",
        setting: "OPEN_CAPTURES_PER_INSTANCE",
      },
      { of: { queue }, limit: perHost, owner: "its host", setting: "OPEN_CAPTURES_PER_HOST" },
      { of: { caller }, limit: perCaller, owner: "this caller", setting: "OPEN_CAPTURES_PER_CALLER" },
    ]
    const asked = limits.map((one) => ({ ...one, count: countOf(one.of, one.limit) }))
    const open = await Promise.all(asked.map(({ count }) => count.counted))
    for (const [index, { limit, owner, setting, count }] of asked.entries())
      if ((open[index] ?? 0) + count.admitted >= limit) throw tooMany(owner, limit, setting)
    // Nothing is awaited between the look and this, so creates at the same moment see each other.
    for (const { count } of asked) count.admitted += 1
  }
}

function tooMany(owner: string, limit: number, setting: string): StillframeError {
  return new StillframeError(
    "limit_reached",
    `too many snapshots of ${owner} wait to be captured: the limit is ${limit}. Try again once some are captured, delete some that wait, or ask the operator to raise ${setting}`,
  )
}
