import { openTrouble } from "@stillframe/domain/postgres/outage"
import type { Logger } from "@stillframe/runtime/logger"

export interface LoopOptions {
  /** For the log. */
  readonly name: string
  /** At the latest this long after the last turn, woken or not. */
  readonly everyMs: number
  /**
   * One turn. May return in how many milliseconds it wants the next one. `signal` asks a long one to end
   * early.
   */
  readonly turn: (signal: AbortSignal) => Promise<number | undefined | void>
  readonly log: Logger
}

export interface Loop {
  /** Asks for a turn as soon as none is running; a wake-up during a turn is not lost. */
  wake(): void
  /** Takes no more turns and waits for the one that runs. */
  stop(): Promise<void>
}

const failurePauseMsMax = 15_000

/**
 * Turns one after the other: when woken, when the last one asked for it, else every so often. A turn that
 * fails is logged and tried again, at first after `everyMs`, then less and less often.
 */
export function startLoop({ name, everyMs, turn, log }: LoopOptions): Loop {
  const stopping = new AbortController()
  const { signal } = stopping
  const trouble = openTrouble(log.child({ loop: name }), {
    lost: "a turn failed; trying again",
    back: "turns succeed again",
  })
  let woken = false
  let failures = 0
  let endPause = (): void => undefined

  async function takeTurn(): Promise<number> {
    try {
      const dueInMs = (await turn(signal)) ?? everyMs
      failures = 0
      trouble.worked()
      return Math.min(Math.max(dueInMs, 0), everyMs)
    } catch (err) {
      failures += 1
      trouble.failed(err)
      return Math.min(everyMs * 2 ** Math.min(failures - 1, 10), failurePauseMsMax)
    }
  }

  function pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms)
      endPause = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  async function run(): Promise<void> {
    while (!signal.aborted) {
      woken = false
      const pauseMs = await takeTurn()
      if (!signal.aborted && !(woken && failures === 0)) await pause(pauseMs)
    }
  }

  const ended = run()
  return {
    wake() {
      woken = true
      // The failed service is probably still down, so a wake-up is no reason to hurry.
      if (failures === 0) endPause()
    },
    stop() {
      stopping.abort()
      endPause()
      return ended
    },
  }
}
