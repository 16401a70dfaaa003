import type { WakeChannel, Waker } from "@stillframe/db/connection/wake"

export interface Waiting {
  readonly waker: Waker
  /** Aborted when the process is about to end. */
  readonly stopping: AbortSignal
}

/** Covers a wake-up that was lost. */
const pollMs = 1_000

/**
 * Reads until there is something, again after each wake-up and at least every second. Undefined: the time has
 * run out, or the process is stopping. Throws the signal's reason when the client is gone.
 */
export async function waitUntil<T>(
  { waker, stopping }: Waiting,
  read: () => Promise<T | undefined>,
  { timeoutMs, signal, on = "events" }: { timeoutMs: number; signal: AbortSignal; on?: WakeChannel },
): Promise<T | undefined> {
  const deadline = performance.now() + timeoutMs
  let rung = false
  let continueNow: () => void = () => {}
  const ring = (): void => {
    rung = true
    continueNow()
  }
  const ended = AbortSignal.any([signal, stopping])
  ended.addEventListener("abort", ring)
  const stopListening = waker.listen(on, ring)
  try {
    for (;;) {
      // Reset before the reading: a change in the middle of it must cause another.
      rung = false
      const found = await read()
      if (found !== undefined) return found
      signal.throwIfAborted()
      const leftMs = deadline - performance.now()
      if (leftMs <= 0 || stopping.aborted) return undefined
      await new Promise<void>((resolve) => {
        if (rung) return resolve()
        const timer = setTimeout(resolve, Math.min(leftMs, pollMs))
        continueNow = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  } finally {
    stopListening()
    ended.removeEventListener("abort", ring)
  }
}
