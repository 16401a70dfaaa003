import { monitorEventLoopDelay } from "node:perf_hooks"

export const heldTries = 5

/**
 * How long a request holds the event loop at a time, at most, in milliseconds. That is the smaller of what the clock
 * and what this thread's processor time say, in the best of five tries: a busy machine, the first run of a function
 * and a garbage collection hold the loop as well.
 */
export async function heldMs(ask: () => Promise<unknown>): Promise<number> {
  let best = Infinity
  for (let n = 0; n < heldTries && best > enoughMs; n += 1) best = Math.min(best, await heldOnceMs(ask))
  return best
}

/** A try that took no longer needs no other. */
const enoughMs = 25

async function heldOnceMs(ask: () => Promise<unknown>): Promise<number> {
  const delay = monitorEventLoopDelay({ resolution: 1 })
  let processorMs = 0
  let usedBefore = threadMs()
  const look = (): void => {
    const used = threadMs()
    processorMs = Math.max(processorMs, used - usedBefore)
    usedBefore = used
    turn = setImmediate(look)
  }
  let turn = setImmediate(look)
  delay.enable()
  try {
    await ask()
  } finally {
    delay.disable()
    clearImmediate(turn)
  }
  return Math.min(delay.max / 1e6, processorMs)
}

function threadMs(): number {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1e3
}
