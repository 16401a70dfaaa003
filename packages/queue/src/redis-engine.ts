import { Queue, Worker } from "bullmq"
import { Redis } from "ioredis"
import { engineOn, type BullBackend } from "./backend.ts"
import type { QueueEngine } from "./contract.ts"
import { jobId } from "./job.ts"
import { redisProblems } from "./redis-health.ts"
import { inRedisWords } from "./redis-words.ts"

export interface RedisEngineOptions {
  readonly redisUrl: string
  readonly prefix: string
  readonly onError: (error: Error) => void
  readonly onConnected?: (() => void) | undefined
}

/** BullMQ prints its opinion of a Redis to the console; `problems()` reports it instead. */
const skipVersionCheck = true

/**
 * BullMQ on Redis. Opens at once: a Redis that is down shows in `onError`, and `add` throws until it is up.
 */
export function openRedisEngine({ redisUrl, prefix, ...options }: RedisEngineOptions): QueueEngine {
  const inWords = (error: Error): Error => inRedisWords(error, redisUrl)
  const onError = (error: Error): void => options.onError(inWords(error))
  const onConnected = options.onConnected ?? (() => undefined)
  // One connection for all that is added and asked; a worker has two of its own. Here a command fails while
  // Redis is down, since its caller tries again; a worker's must wait.
  const redis = new Redis(redisUrl, { maxRetriesPerRequest: 1 })
  redis.on("error", onError).on("ready", onConnected)

  const backend: BullBackend = {
    kind: "redis",
    openQueue(name) {
      const queue = new Queue(name, { connection: redis, prefix, skipMetasUpdate: true, skipVersionCheck })
      queue.on("error", onError)
      return queue
    },
    openWorker(name, processor, settings) {
      const connection = { url: redisUrl, maxRetriesPerRequest: null }
      const worker = new Worker(name, processor, { connection, prefix, skipVersionCheck, ...settings })
      // A Redis that was full goes on without another connection.
      worker.on("error", onError).on("ready", onConnected).on("active", onConnected)
      worker.on("failed", (_job, error) => onError(error))
      return worker
    },
    async held(jobs) {
      const pipeline = redis.pipeline()
      // A finished job is removed with its key, so the key says it all.
      for (const job of jobs) pipeline.exists(`${prefix}:${job.queue}:${jobId(job)}`)
      const answers = (await pipeline.exec()) ?? []
      return answers.map(([error, exists]) => {
        if (error !== null) throw error
        return exists === 1
      })
    },
    inWords,
    repair: () => Promise.resolve(false),
    async problems() {
      try {
        return redisProblems(await redis.info())
      } catch (error) {
        return [{ code: "unavailable", message: inWords(error as Error).message }]
      }
    },
    end() {
      redis.disconnect()
      return Promise.resolve()
    },
  }
  return engineOn(backend, onError)
}
