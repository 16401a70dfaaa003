import type { OutageLog } from "@stillframe/domain/postgres/outage"
import { sql } from "kysely"
import { openDatabase, type OwnedDatabase } from "./client.ts"
import { openDatabaseOutage } from "./connection/database-outage.ts"
import { openWaker, type Waker } from "./connection/wake.ts"
import { migrate } from "./migrate.ts"
import { assertOwnSessions } from "./requirements.ts"

export interface OpenOptions {
  readonly databaseUrl: string
  /** Reaches Postgres itself where `databaseUrl` is a transaction-mode pooler. */
  readonly databaseDirectUrl: string
  /** Most connections of the pool, 10 by default. The one for notifications comes on top. */
  readonly databaseConnections?: number | undefined
  readonly log: OutageLog
  /** Moves `clock()`: an interval such as `1 hour`. Tests only. */
  readonly clockOffset?: string | undefined
}

export interface OpenedDatabase {
  readonly db: OwnedDatabase
  readonly waker: Waker
  /** Tells numberer and publisher that a commit may have left them something. */
  readonly committed: () => void
}

/**
 * Opens the pool, brings the schema up to date, and opens the connection by which processes wake each other.
 * Parts of one process share what is `shared`; its opener closes it.
 */
export async function openMigrated(
  resources: AsyncDisposableStack,
  options: OpenOptions,
  shared?: OpenedDatabase,
): Promise<OpenedDatabase> {
  if (shared !== undefined) return shared
  const { log, clockOffset, databaseConnections } = options
  const outage = openDatabaseOutage(log, () => sql`select 1`.execute(db))
  const pooled = options.databaseUrl !== options.databaseDirectUrl
  const db = openDatabase({
    url: options.databaseUrl,
    pooled,
    onIdleError: outage.broken,
    onRefused: outage.pool.failed,
    onConnected: outage.pool.worked,
    ...(databaseConnections !== undefined && { connectionsMax: databaseConnections }),
    ...(clockOffset !== undefined && { clockOffset }),
  })
  resources.defer(() => db.destroy())
  if (!pooled) await assertOwnSessions(db)
  await migrate(db)
  const waker = await openWaker({
    url: options.databaseDirectUrl,
    setting: pooled ? "DATABASE_DIRECT_URL" : "DATABASE_URL",
    onError: outage.notifications.failed,
    onConnected: outage.notifications.worked,
  })
  outage.begin()
  resources.defer(() => waker.close())
  const committed = (): void => {
    waker.wake("events")
    waker.wake("operations")
  }
  return { db, waker, committed }
}
