import type { QueueEngine } from "./contract.ts"
import { openPostgresEngine } from "./postgres-engine.ts"
import { openRedisEngine } from "./redis-engine.ts"

export interface QueueEngineOptions {
  /** Set: BullMQ on that Redis. Not set: BullMQ's PostgreSQL backend on `databaseUrl`. */
  readonly redisUrl?: string | undefined
  /**
   * Must reach Postgres itself, not a transaction-mode pooler: the backend listens and sets its
   * `search_path`.
   */
  readonly databaseUrl: string
  /** Begins all keys in Redis. The PostgreSQL backend always uses the schema `bullmq`. */
  readonly prefix?: string | undefined
  /** Called with whatever goes wrong in the background and with each handler's failure. */
  readonly onError: (error: Error) => void
  /**
   * Called when a connection to Redis is made, the first one included, and with each job that it hands out.
   */
  readonly onConnected?: (() => void) | undefined
}

/**
 * The engine that parts of one process share, if there is one; else one of the caller's own, closed with
 * `resources`.
 */
export async function useQueueEngine(
  resources: AsyncDisposableStack,
  options: QueueEngineOptions,
  shared?: QueueEngine,
): Promise<QueueEngine> {
  if (shared !== undefined) return shared
  const engine = await openQueueEngine(options)
  resources.defer(() => engine.close())
  return engine
}

export function openQueueEngine(options: QueueEngineOptions): Promise<QueueEngine> {
  const { redisUrl, databaseUrl, prefix = "stillframe", onError, onConnected } = options
  return redisUrl === undefined
    ? openPostgresEngine({ databaseUrl, onError })
    : Promise.resolve(openRedisEngine({ redisUrl, prefix, onError, onConnected }))
}
