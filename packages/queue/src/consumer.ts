import type { Job as BullJob } from "bullmq"
import type { ConsumeOptions, Consumer } from "./contract.ts"
import { within } from "./deadline.ts"
import { operationIdOf } from "./job.ts"

/** The part of a BullMQ worker that both backends share. */
export interface BullWorker {
  close(): Promise<void>
  disconnect(): Promise<void>
}

const handlersEndMs = 14_000
const connectionEndMs = 2_000

/**
 * Starts a worker made by `open` around the handler, and closes it by our own rules: BullMQ's `close()` never
 * returns while the engine is unreachable.
 */
export function startConsumer(
  { handler }: ConsumeOptions,
  open: (processor: (job: BullJob) => Promise<void>) => BullWorker,
  onError: (error: Error) => void,
): Consumer {
  const stop = new AbortController()
  const running = new Set<Promise<void>>()
  const left = Promise.withResolvers<void>()

  const worker = open(async (job) => {
    const work = handler(operationIdOf(job.data), stop.signal)
    running.add(work)
    try {
      // A job that never ended would keep the worker, and with it the process.
      await Promise.race([work, left.promise])
    } finally {
      running.delete(work)
    }
  })

  async function close(): Promise<void> {
    stop.abort()
    const closed = worker.close()
    try {
      await within(handlersEndMs, "ending the handlers of a queue", Promise.allSettled(running))
    } catch (error) {
      onError(error as Error)
      // Not before: one whose job had been fetched already begins only now, to hand it back.
      left.resolve()
    }
    try {
      await within(connectionEndMs, "closing a queue's worker", closed)
    } catch (error) {
      onError(error as Error)
      closed.catch(onError)
      worker.disconnect().catch(onError)
    }
  }

  let closing: Promise<void> | undefined
  return { close: () => (closing ??= close()) }
}
