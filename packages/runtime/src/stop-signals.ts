import type { Logger } from "./logger.ts"

const stopSignals = ["SIGTERM", "SIGINT", "SIGHUP"] as const
type StopSignal = (typeof stopSignals)[number]

// `timeout`, npm and others signal the process and then its group: that is one request.
const echoMs = 500

/** A process that is asked to stop, for as long as this is not disposed of. */
export interface StopRequest extends Disposable {
  /** Aborted by the first SIGTERM, SIGINT or SIGHUP. */
  readonly signal: AbortSignal
  /** Resolves with it; never rejects. */
  readonly asked: Promise<StopSignal>
}

/** The first signal is a request. A second one ends the process at once, by that signal. */
export function onStopSignals(log: Pick<Logger, "warn">): StopRequest {
  const stop = new AbortController()
  const { promise: asked, resolve } = Promise.withResolvers<StopSignal>()
  let askedMs = Infinity

  function onSignal(signal: StopSignal): void {
    if (!stop.signal.aborted) {
      askedMs = performance.now()
      stop.abort()
      resolve(signal)
    } else if (performance.now() - askedMs > echoMs) {
      log.warn(`${signal} came again: ending at once; what was under way goes on at the next start`)
      remove()
      process.kill(process.pid, signal)
    }
  }
  function remove(): void {
    for (const signal of stopSignals) process.off(signal, onSignal)
  }

  for (const signal of stopSignals) process.on(signal, onSignal)
  return { signal: stop.signal, asked, [Symbol.dispose]: remove }
}
