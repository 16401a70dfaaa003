import { isConnectionLoss } from "@stillframe/domain/postgres/connection-loss"
import { setSession } from "@stillframe/domain/postgres/session"
import { createPostgresBackend, withBackend, type PgPool } from "bullmq"
import { Pool, type ClientBase } from "pg"
import { engineOn, type BullBackend } from "./backend.ts"
import type { QueueEngine } from "./contract.ts"
import { jobId } from "./job.ts"
import { inPostgresWords, isOutOfConnections, patientPool } from "./patient-pool.ts"
import { pauseUntil } from "./pause-until.ts"
import { bullSchema, countObjects, isSchemaError, migrateSchema, rebuildSchema } from "./postgres-schema.ts"

/** For all queries of queues and workers; BullMQ's default is 10 for each of those. */
const queryConnections = 2
/** That a worker keeps for as long as it is open. */
const listenConnections = 1
const connectMs = 5_000

const { Queue, Worker } = withBackend(createPostgresBackend)

export interface PostgresEngineOptions {
  readonly databaseUrl: string
  readonly onError: (error: Error) => void
}

/**
 * BullMQ on its PostgreSQL backend; migrates it first, because a worker on a missing schema blocks the event
 * loop for good.
 */
export async function openPostgresEngine({
  databaseUrl,
  ...options
}: PostgresEngineOptions): Promise<QueueEngine> {
  // A database that is away is told by its own users.
  const inWords = (error: Error): Error =>
    isConnectionLoss(error) && !isOutOfConnections(error) ? error : inPostgresWords(error, databaseUrl)
  const onError = (error: Error): void => options.onError(inWords(error))
  const rethrowInWords = (error: Error): never => {
    throw inPostgresWords(error, databaseUrl)
  }
  // BullMQ nests no query in another, so queues and workers share.
  const pool = bullPool(databaseUrl, onError)
  const complete = await migrateSchema(pool).catch(async (error: Error) => {
    await pool.end()
    return rethrowInWords(error)
  })
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
      pool.options.max += listenConnections
      const connection = patientPool(pool, closed.signal, onError) as unknown as PgPool
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
          pool.options.max -= listenConnections
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
      await rebuildSchema(pool, complete)
      return true
    },
    inWords,
    // Each connection reports its own errors, and another part checks the database.
    problems: () => Promise.resolve([]),
    end() {
      closed.abort()
      return pool.end()
    },
  }
  return engineOn(backend, onError)
}

/**
 * Made here and not by BullMQ, which leaves the errors of connections that are being closed to end the
 * process.
 */
function bullPool(databaseUrl: string, onError: (error: Error) => void): Pool {
  const pool = new Pool({
    connectionString: databaseUrl,
    max: queryConnections,
    connectionTimeoutMillis: connectMs,
    keepAlive: true,
    fallback_application_name: "stillframe queue",
    // Not by a statement: a transaction-mode pooler would hand it on to others.
    options: `-c search_path=${bullSchema}`,
    // oxlint-disable-next-line typescript/no-misused-promises -- the pool awaits it
    onConnect: prepareSession,
  })
  pool.on("error", onError)
  // Each queue and worker adds a listener of its own.
  pool.setMaxListeners(0)
  // A query that was under way rejects by itself.
  pool.on("connect", (client) => client.on("error", () => undefined))
  return pool
}

async function prepareSession(client: ClientBase): Promise<void> {
  // pg's types lack the time-out of a query.
  const query = { text: setSession, query_timeout: connectMs }
  await client.query(query)
}
