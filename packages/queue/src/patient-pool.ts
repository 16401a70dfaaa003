import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { postgresRefusal } from "@stillframe/domain/postgres/refusal"
import { serverAt } from "@stillframe/domain/unreachable"
import type { Pool, PoolClient, QueryResult } from "pg"

const pauseMsMin = 250
const pauseMsMax = 5_000

/** The part of a pool that BullMQ uses. */
interface BullPool {
  readonly options: Pool["options"]
  connect(): Promise<PoolClient>
  query(text: string, values?: unknown[]): Promise<QueryResult>
  on: Pool["on"]
  end(): Promise<void>
}

/**
 * `pool` as a worker of BullMQ needs it. Such a worker asks again at once after most failures, and for ever
 * fails when its first connection did, so here a connection is awaited until there is one. `onError` hears of
 * each attempt.
 */
export function patientPool(pool: Pool, signal: AbortSignal, onError: (error: Error) => void): BullPool {
  async function connect(): Promise<PoolClient> {
    for (let pauseMs = pauseMsMin; ; pauseMs = Math.min(pauseMs * 2, pauseMsMax)) {
      try {
        return await pool.connect()
      } catch (error) {
        if (signal.aborted || pool.ending) throw error
        onError(error as Error)
      }
      await delay(pauseMs, undefined, { signal })
    }
  }

  return {
    options: pool.options,
    connect,
    async query(text, values) {
      const client = await connect()
      try {
        const result = await client.query(text, values)
        client.release()
        return result
      } catch (error) {
        // As the pool itself does: it may be the connection that is broken.
        client.release(error as Error)
        throw error
      }
    },
    on: pool.on.bind(pool),
    end: () => pool.end(),
  }
}

export function isOutOfConnections(error: Error & { code?: string }): boolean {
  return error.code === "53300"
}

/** Refused statements of the queue, by the code of Postgres. */
const demands: Readonly<Record<string, string>> = {
  // A pooler's answer to a startup parameter that it does not take.
  "08P01":
    "the queue cannot use the pooler that it is led to. Set DATABASE_DIRECT_URL to Postgres itself, or use REDIS_URL.",
  // insufficient_privilege
  "42501":
    "the database user lacks a privilege that the queue needs. Grant it CREATE on the database, or use REDIS_URL.",
}

/** Explains why Postgres cannot be reached or refuses, where that is known. `said` has the driver's words. */
export function inPostgresWords(error: Error & { code?: string }, url: string | undefined): Error {
  if (error instanceof StillframeError) return error
  const server = serverAt("Postgres", { url, setting: "DATABASE_URL or DATABASE_DIRECT_URL" })
  const reason = postgresRefusal(server, error)
  const words = reason === undefined ? demands[error.code ?? ""] : `the queue ${reason}`
  if (words === undefined) return error
  return new StillframeError("unavailable", words, { cause: error, said: error.message })
}
