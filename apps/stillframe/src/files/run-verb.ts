import type { OnProgress } from "@stillframe/codec/compress"
import { fileError } from "@stillframe/codec/frames/files"
import { StillframeError } from "@stillframe/domain/errors"
import { progressBar } from "./progress-bar.ts"

export interface Work {
  readonly signal: AbortSignal
  readonly onProgress: OnProgress
}

/** As shells count them: 128 and the signal's number. */
const exitStatuses = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const
const signals = Object.keys(exitStatuses) as (keyof typeof exitStatuses)[]

/** A read or write that waits for the other end of a pipe can't be called off, and keeps the process. */
const stuckAfterMs = 1_000

/** Runs a verb until it ends or a signal ends it, and prints why it failed with exit status 1. */
export async function runVerb(verb: (work: Work) => Promise<void>): Promise<void> {
  const interrupted = new AbortController()
  let endBySignal = (): void => undefined
  for (const name of signals) {
    process.once(name, () => {
      process.exitCode = exitStatuses[name]
      endBySignal = () => void process.kill(process.pid, name)
      interrupted.abort()
    })
  }
  const bar = progressBar(process.stderr)
  try {
    await verb({ signal: interrupted.signal, onProgress: bar.onProgress })
    bar.end()
  } catch (error) {
    bar.end()
    if (interrupted.signal.aborted) return void setTimeout(endBySignal, stuckAfterMs).unref()
    const failure = fileError(error)
    if (!(failure instanceof StillframeError)) throw error
    // The files are those that the user has named.
    console.error(failure.said === undefined ? failure.message : `${failure.message} (${failure.said})`)
    process.exitCode = 1
  }
}

/**
 * The result of `work`, or the signal's reason without waiting for work that can't be called off and leaves
 * nothing.
 */
export async function unlessAborted<Result>(work: Promise<Result>, signal: AbortSignal): Promise<Result> {
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  const onAbort = (): void => reject(signal.reason as Error)
  signal.addEventListener("abort", onAbort, { once: true })
  if (signal.aborted) onAbort()
  try {
    return await Promise.race([aborted, work])
  } finally {
    signal.removeEventListener("abort", onAbort)
  }
}
