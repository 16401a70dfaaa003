import { monitorEventLoopDelay } from "node:perf_hooks"

export const heldTries = 5

/**
 * How long a request holds the event loop at a time, at most, in milliseconds of an idle machine. That is the
 * smaller of the clock's and this thread's processor time, in the best of five tries: a busy machine, the
 * first run of a function and a garbage collection hold the loop as well. A processor that others keep busy
 * is slower too, so the time counts by how long the yardstick took just then.
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
  const held = Math.min(delay.max / 1e6, processorMs)
  return held < enoughMs ? held : held / slowness()
}

const records = Array.from({ length: 18_000 }, (_, n) => `{"k${String(n).padStart(5, "0")}":1}`)
const yardstick = `{"a":[${records.join(",")}]}`
/** How long the yardstick takes on two idle processors of 2.5 GHz. */
const yardstickMs = 14
const yardstickTries = 5

/** How many times slower this thread is than on an idle machine, by the median of a few tries. At least 1. */
function slowness(): number {
  const times = Array.from({ length: yardstickTries }, () => {
    const before = threadMs()
    JSON.parse(yardstick)
    return threadMs() - before
  })
  const median = times.toSorted((a, b) => a - b)[Math.floor(yardstickTries / 2)] ?? yardstickMs
  return Math.max(1, median / yardstickMs)
}

function threadMs(): number {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1e3
}
