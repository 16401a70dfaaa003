/** A save that has grown within this time is not stuck. */
export const growthGraceMs = 10_000

/**
 * When a save is to be given up: after `expectedMs`, unless it has grown lately, and after `limitMs` in any
 * case. The returned function is asked now and then, with milliseconds since the pause and bytes saved so
 * far.
 */
export function pauseDeadline({
  expectedMs,
  limitMs,
}: {
  expectedMs: number
  limitMs: number
}): (sinceMs: number, bytes: number) => boolean {
  let most = 0
  let grownAtMs = -growthGraceMs
  return (sinceMs, bytes) => {
    if (bytes > most) [most, grownAtMs] = [bytes, sinceMs]
    return sinceMs >= Math.min(limitMs, Math.max(expectedMs, grownAtMs + growthGraceMs))
  }
}
