import { StillframeError, toStillframeError } from "@stillframe/domain/errors"
import type { Problems } from "./problems.ts"

const lookMs = 2_000
/** A file server that is away may keep a look waiting for ever. */
const answerMs = 10_000

interface Watched {
  readonly dir: string
  /** Throws why the directory can't be used now. */
  check(): Promise<void>
}

interface WatchOptions {
  readonly problems: Problems
  /** Called when the directory can be used again. */
  readonly onBack: () => Promise<void>
}

/** Examines a directory every 2 s and lists a failure among the process's problems until it is over. */
export function watchPlace(place: Watched, { problems, onBack }: WatchOptions): Disposable {
  let looking: Promise<void> | undefined
  let away = false
  let disposed = false

  async function look(): Promise<void> {
    const overdue = setTimeout(() => report(doesNotAnswer(place.dir)), answerMs)
    try {
      await place.check()
    } catch (error) {
      return report(toStillframeError(error))
    } finally {
      clearTimeout(overdue)
    }
    problems.set(place.dir, undefined)
    if (away && !disposed) await takeUp()
  }

  async function takeUp(): Promise<void> {
    try {
      await onBack()
      away = false
    } catch {
      // The database is away, which its own users tell; the next look tries again.
    }
  }

  function report({ code, message }: StillframeError): void {
    away = true
    problems.set(place.dir, { code, message })
  }

  const timer = setInterval(() => {
    looking ??= look().finally(() => (looking = undefined))
  }, lookMs)
  return {
    // Without waiting for a look that may never end.
    [Symbol.dispose]() {
      disposed = true
      clearInterval(timer)
    },
  }
}

function doesNotAnswer(dir: string): StillframeError {
  return new StillframeError(
    "storage_unavailable",
    `a directory of the host has not answered for ${answerMs / 1_000} s. Check its disk, or the file server that it is on.`,
    { said: dir },
  )
}
