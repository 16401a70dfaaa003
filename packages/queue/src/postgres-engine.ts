import { isConnectionLoss } from "@stillframe/domain/connection-loss"
import { createPostgresBackend, withBackend, type PgPool } from "bullmq"
import { Pool } from "pg"
import { engineOn, type BullBackend } from "./backend.ts"
import type { QueueEngine } from "./engine.ts"
import { jobId } from "./job.ts"
import { bullSchema, countObjects, isSchemaError, migrateSchema, rebuildSchema } from "./postgres-schema.ts"

// BullMQ's default is 10 each: five queues and workers then hold 106 connections.
const connectionsMax = 2
const listenConnections = 1
const connectMs = 5_000
const schemaCheckMs = 1_000

const { Queue, Worker } = withBackend(createPostgresBackend)

export interface PostgresEngineOptions {
  readonly databaseUrl: string
  readonly onError: (error: Error) => void
}

/** BullMQ on its PostgreSQL backend; migrates it first, because a worker on a missing schema blocks the event loop for good. */
export async function openPostgresEngine({
  databaseUrl,
  onError,
}: PostgresEngineOptions): Promise<QueueEngine> {
  const complete = await migrateSchema(databaseUrl)
  const openPool = (max: number): Pool => bullPool(databaseUrl, max, onError)
  // One pool for all queues of the process; each worker has one of its own.
  const pool = openPool(connectionsMax)
  const closed = new AbortController()
  const intact = async (): Promise<boolean> => (await countObjects(pool)) >= complete

  const backend: BullBackend = {
    kind: "postgres",
    openQueue(name) {
      const queue = new Queue(name, { connection: pool as unknown as PgPool, skipMetasUpdate: true })
      queue.on("error", onError)
      return queue
    },
    openWorker(name, processor, settings) {
      const own = openPool(connectionsMax + listenConnections)
      const connection = own as unknown as PgPool
      const worker = new Worker<unknown, void>(name, processor, { connection, ...settings })
      worker.on("failed", (_job, error) => onError(error))
      worker.on("error", (error) => {
        onError(error)
        if (isSchemaError(error) || isConnectionLoss(error))
          pauseUntil(worker, intact, closed.signal, onError)
      })
      return {
        async close() {
          await worker.close()
          await own.end()
        },
        disconnect: () => worker.disconnect(),
      }
    },
    async held(jobs) {
      const { rows } = await pool.query<{ held: boolean }>(
        `select exists (
           select from ${bullSchema}.job
           where job.queue = asked.queue and job.id = asked.id and job.state not in ('completed', 'failed')) as held
         from unnest($1::text[], $2::text[]) with ordinality as asked (queue, id, place) order by place`,
        [jobs.map((job) => job.queue), jobs.map(jobId)],
      )
      return rows.map(({ held }) => held)
    },
    async repair() {
      if (await intact()) return false
      await rebuildSchema(databaseUrl, complete)
      return true
    },
    end() {
      closed.abort()
      return pool.end()
    },
  }
  return engineOn(backend, onError)
}

/** Made here and not by BullMQ, which leaves the errors of connections that are being closed to end the process. */
function bullPool(databaseUrl: string, max: number, onError: (error: Error) => void): Pool {
  const pool = new Pool({
    connectionString: databaseUrl,
    max,
    connectionTimeoutMillis: connectMs,
    keepAlive: true,
    options: `-c search_path=${bullSchema}`,
  })
  pool.on("error", onError)
  // A query that was under way rejects by itself.
  pool.on("connect", (client) => client.on("error", () => undefined))
  return pool
}

interface PausableWorker {
  isPaused(): boolean
  pause(doNotWaitActive: boolean): Promise<void>
  resume(): Promise<void>
}

/**
 * A worker whose tables or connections are gone asks again without any pause, which can keep the event loop from ever
 * noticing that a connection has ended. So it is stopped until the tables are there.
 */
function pauseUntil(
  worker: PausableWorker,
  intact: () => Promise<boolean>,
  signal: AbortSignal,
  onError: (error: Error) => void,
): void {
  if (worker.isPaused()) return
  worker.pause(true).catch(onError)

  async function check(): Promise<void> {
    if (signal.aborted || !(await intact())) return
    clearInterval(timer)
    await worker.resume()
  }
  const timer = setInterval(() => void check().catch(onError), schemaCheckMs)
  signal.addEventListener("abort", () => clearInterval(timer), { once: true })
}
