import { once } from "node:events"
import { openQueueEngine, type QueueEngineOptions } from "@stillframe/queue/engine"

/** A worker to be killed: takes a job, says which, and never ends it. */
interface Order {
  readonly settings: Omit<QueueEngineOptions, "onError">
  readonly queue: string
  readonly lockMs: number
}

const [{ settings, queue, lockMs }] = (await once(process, "message")) as [Order]
const engine = await openQueueEngine({
  ...settings,
  onError(error) {
    throw error
  },
})
await engine.consume(queue, {
  concurrency: 1,
  lockMs,
  handler(id) {
    process.send?.(id)
    return new Promise(() => undefined)
  },
})
process.send?.("consuming")
