import { LRUCache } from "lru-cache"

/** A key that has not asked for long has a full bucket, so one that is forgotten loses nothing. */
const keysMax = 10_000

/** How much of its rate a key may save up, in seconds. */
const burstSeconds = 10

/** Takes one from the key's bucket. Returns 0, or in how many milliseconds there is one to take. */
export type TakeOne = (key: string) => number

/**
 * A token bucket for each key: it fills with `perSecond` a second and holds those of ten seconds. 0: no
 * limit. `nowMs` is a clock that does not go back.
 */
export function openBuckets(perSecond: number, nowMs: () => number = () => performance.now()): TakeOne {
  if (perSecond === 0) return () => 0
  const buckets = new LRUCache<string, { left: number; atMs: number }>({ max: keysMax })
  const full = perSecond * burstSeconds
  return (key) => {
    const atMs = nowMs()
    const { left, atMs: before } = buckets.get(key) ?? { left: full, atMs }
    const now = Math.min(full, left + ((atMs - before) / 1_000) * perSecond)
    const taken = now >= 1
    buckets.set(key, { left: taken ? now - 1 : now, atMs })
    return taken ? 0 : ((1 - now) / perSecond) * 1_000
  }
}
