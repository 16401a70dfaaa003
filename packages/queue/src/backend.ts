import type { Problem } from "@stillframe/domain/problem"
import type { BulkJobOptions, Job as BullJob } from "bullmq"
import { startConsumer, type BullWorker } from "./consumer.ts"
import type { ConsumeOptions, Consumer, Job, QueueEngine } from "./contract.ts"
import { within } from "./deadline.ts"
import { byQueue, toBullJob } from "./job.ts"

const answerMs = 5_000
const closeMs = 2_000

/** The part of a BullMQ queue that the engine uses. */
export interface BullQueue {
  addBulk(jobs: { name: string; data: unknown; opts: BulkJobOptions }[]): Promise<unknown>
  close(): Promise<void>
}

/** The differences between Redis and Postgres. */
export interface BullBackend {
  readonly kind: QueueEngine["kind"]
  openQueue(name: string): BullQueue
  openWorker(name: string, processor: (job: BullJob) => Promise<void>, options: WorkerSettings): BullWorker
  /** For each job whether it waits or is being worked on. */
  held(jobs: readonly Job[]): Promise<boolean[]>
  repair(): Promise<boolean>
  /** An error of its client in words that end in a remedy, where it is known. */
  inWords(error: Error): Error
  problems(): Promise<readonly Problem[]>
  /** Ends the connections that are not a queue's or a worker's own. */
  end(): Promise<void>
}

export interface WorkerSettings {
  readonly concurrency: number
  readonly lockDuration?: number
  readonly stalledInterval?: number
}

/** Adds deadlines to a backend and closes its open queues and consumers. */
export function engineOn(backend: BullBackend, onError: (error: Error) => void): QueueEngine {
  const queues = new Map<string, BullQueue>()
  const consumers = new Set<Consumer>()

  function rethrow(error: Error): never {
    throw backend.inWords(error)
  }

  function queueOf(name: string): BullQueue {
    const queue = queues.get(name) ?? backend.openQueue(name)
    queues.set(name, queue)
    return queue
  }

  return {
    kind: backend.kind,
    async add(jobs) {
      const added = byQueue(jobs).map(([name, some]) => queueOf(name).addBulk(some.map(toBullJob)))
      await within(answerMs, "adding jobs to the queue", Promise.all(added)).catch(rethrow)
    },
    async unfinished(jobs) {
      if (jobs.length === 0) return new Set()
      const asked = within(answerMs, "asking the queue for jobs", backend.held(jobs))
      const held = await asked.catch(rethrow)
      return new Set(jobs.filter((_, index) => held[index]).map((job) => job.id))
    },
    consume(name, options) {
      const open = (processor: (job: BullJob) => Promise<void>): BullWorker =>
        backend.openWorker(name, processor, workerSettings(options))
      const consumer = startConsumer(options, open, onError)
      consumers.add(consumer)
      return Promise.resolve(consumer)
    },
    repair: () => backend.repair(),
    problems: () =>
      within(answerMs, "asking the queue's server how it is", backend.problems()).catch((error: Error) => [
        { code: "unavailable", message: error.message },
      ]),
    async close() {
      await Promise.all([...consumers].map((consumer) => consumer.close()))
      const ended = Promise.all([...queues.values()].map((queue) => queue.close())).then(() => backend.end())
      await within(closeMs, "closing the queue", ended).catch(onError)
    },
  }
}

function workerSettings({ concurrency, lockMs }: ConsumeOptions): WorkerSettings {
  return { concurrency, ...(lockMs !== undefined && { lockDuration: lockMs, stalledInterval: lockMs }) }
}
