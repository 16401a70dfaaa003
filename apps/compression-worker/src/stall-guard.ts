import { StillframeError } from "@stillframe/domain/errors"
import type { Problems } from "@stillframe/runtime/problems"

/** A disk that is only slow reads or writes some piece of a file in this time. */
const defaultStallMs = 5 * 60_000
/** Threads that do not hang end at their next frame. */
const defaultEndMs = 5_000
const problemKey = "stalled work"

export interface GuardedWork {
  /** Aborted when the work is called off or makes no progress. */
  readonly signal: AbortSignal
  /** Says how far the work is, in any unit; the same value again is no progress. */
  readonly reached: (position: number) => void
}

export interface StallGuard {
  /**
   * Does work on the pool's files and gives it up with `timeout` when it makes no progress.
   *
   * A thread in a call to a file system that hangs cannot be ended, and closing its files would give their
   * numbers to other files, which it would then write. So its work is left as it is, with its files open, and
   * ends when the call returns. Until then further work fails with `storage_unavailable`, which waits:
   * threads and memory of the process stay bounded.
   */
  run<T>(signal: AbortSignal, work: (guarded: GuardedWork) => Promise<T>): Promise<T>
}

interface StallGuardOptions {
  readonly problems: Problems
  /** Called when no work hangs any more. */
  readonly onEnd: () => void
  readonly stallMs?: number | undefined
  /** How long work that was given up may take to end. */
  readonly endMs?: number
}

export function openStallGuard({
  problems,
  onEnd,
  stallMs = defaultStallMs,
  endMs = defaultEndMs,
}: StallGuardOptions): StallGuard {
  let left = 0

  function leave(working: Promise<unknown>): void {
    left++
    const { code, message } = hangs()
    problems.set(problemKey, { code, message })
    const ended = (): void => {
      left--
      if (left > 0) return
      problems.set(problemKey, undefined)
      onEnd()
    }
    // Its operation has failed already, for the reason that it was given up for.
    working.then(ended, ended)
  }

  return {
    async run(signal, work) {
      if (left > 0) throw hangs()
      const stalled = new AbortController()
      const { promise: givenUp, reject: giveUp } = Promise.withResolvers<never>()
      let endTimer: NodeJS.Timeout | undefined
      const timer = setTimeout(() => {
        const error = noProgress(stallMs)
        stalled.abort(error)
        endTimer = setTimeout(() => {
          leave(working)
          giveUp(error)
        }, endMs)
      }, stallMs)
      let position: number | undefined
      const reached = (now: number): void => {
        if (now === position || stalled.signal.aborted) return
        position = now
        timer.refresh()
      }
      const working = work({ signal: AbortSignal.any([signal, stalled.signal]), reached })
      try {
        return await Promise.race([working, givenUp])
      } finally {
        clearTimeout(timer)
        clearTimeout(endTimer)
      }
    },
  }
}

function noProgress(stallMs: number): StillframeError {
  return new StillframeError(
    "timeout",
    `no file of the snapshot could be read or written for ${stallMs / 1_000} s, so the work was abandoned; check the disk of STORAGE_DIR, or the file server that it is on`,
  )
}

function hangs(): StillframeError {
  return new StillframeError(
    "storage_unavailable",
    "earlier work of this compression-worker still hangs in a file of STORAGE_DIR. Check its disk, or the file server that it is on; if that works again, restart the worker.",
  )
}
