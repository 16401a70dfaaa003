import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { counted } from "@stillframe/domain/text/counted"
import type { Pool } from "pg"
import { connectionRefusal, isOutOfConnections } from "./connection-refusal.ts"

const refusedPauseMs = 250
/** A pool that Postgres refused another connection makes do with those it has, this long. */
const makeDoMs = 5_000

/**
 * Takes a connection of `pool` by `connect`. While Postgres refuses another one, waits for one of the pool's
 * own. Throws `unavailable` in words once the pool's `connectionTimeoutMillis` have passed.
 */
export async function acquire<T>(pool: Pool, connect: () => Promise<T>): Promise<T> {
  const deadlineMs = performance.now() + (pool.options.connectionTimeoutMillis ?? Infinity)
  for (;;) {
    try {
      return await connect()
    } catch (error) {
      if (performance.now() > deadlineMs || !isOutOfConnections(error)) throw refusal(pool, error)
      makeDo(pool)
      if (pool.totalCount === 0) await delay(refusedPauseMs)
      if (pool.ending) throw refusal(pool, error)
    }
  }
}

const limits = new WeakMap<Pool, number>()

function limitOf(pool: Pool): number {
  return limits.get(pool) ?? pool.options.max
}

/**
 * Lowers the pool's limit to the connections that it has: who waits for one of those asks Postgres for
 * nothing.
 */
function makeDo(pool: Pool): void {
  if (pool.totalCount === 0) return
  if (!limits.has(pool)) {
    limits.set(pool, pool.options.max)
    setTimeout(() => {
      pool.options.max = limitOf(pool)
      limits.delete(pool)
    }, makeDoMs).unref()
  }
  pool.options.max = Math.min(pool.options.max, pool.totalCount)
}

function refusal(pool: Pool, error: unknown): unknown {
  if ((error as Error).message !== waitedInVain)
    return connectionRefusal(error, { url: pool.options.connectionString }) ?? error
  const { max, connectionTimeoutMillis = 0 } = pool.options
  const seconds = connectionTimeoutMillis / 1_000
  const message =
    max < limitOf(pool)
      ? `Postgres refuses more connections, and ${counted(max, "connection")} of this process ${max === 1 ? "was" : "were"} in use for ${seconds} s. Raise max_connections or the role's CONNECTION LIMIT in Postgres, or lower DATABASE_CONNECTIONS of other processes.`
      : `all ${max} database connections of this process were in use for ${seconds} s. Try again later; if this happens often, raise DATABASE_CONNECTIONS.`
  return new StillframeError("unavailable", message, { cause: error })
}

/** By which pg's pool says that no connection became free; it has no code. */
const waitedInVain = "timeout exceeded when trying to connect"
