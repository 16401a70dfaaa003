import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
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
 * `pool` as a worker of BullMQ needs it. Such a worker asks again at once after most failures, and for ever fails when
 * its first connection did, so here a connection is awaited until there is one. `onError` hears of each attempt.
 */
export function patientPool(pool: Pool, signal: AbortSignal, onError: (error: Error) => void): BullPool {
  async function connect(): Promise<PoolClient> {
    for (let pauseMs = pauseMsMin; ; pauseMs = Math.min(pauseMs * 2, pauseMsMax)) {
      try {
        return await pool.connect()
      } catch (error) {
        if (signal.aborted || pool.ending) throw error
        onError(inPostgresWords(error as Error))
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

const remedies: Readonly<Record<string, string>> = {
  // too_many_connections
  "53300":
    "the queue waits for a connection that Postgres has to spare ({why}). Raise max_connections or the role's CONNECTION LIMIT in Postgres, or lower DATABASE_CONNECTIONS.",
  // A pooler's answer to a startup parameter that it does not take.
  "08P01":
    "the queue cannot use the pooler that it is led to ({why}). Set DATABASE_DIRECT_URL to Postgres itself, or use REDIS_URL.",
  // insufficient_privilege
  "42501":
    "the database user lacks a privilege that the queue needs ({why}). Grant it CREATE on the database, or use REDIS_URL.",
}

/** Why Postgres refuses the queue something, where it is known. */
export function inPostgresWords(error: Error & { code?: string }): Error {
  const words = remedies[error.code ?? ""]
  if (words === undefined) return error
  return new StillframeError(
    "unavailable",
    words.replace("{why}", () => error.message),
    { cause: error },
  )
}
