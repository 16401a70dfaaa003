import { openOutage, type OutageLog } from "@stillframe/domain/outage"
import { openDatabase, type OwnedDatabase } from "./client.ts"
import { connectionRefusal } from "./connection-refusal.ts"
import { migrate } from "./migrate.ts"
import { assertOwnSessions } from "./requirements.ts"
import { openWaker, type Waker } from "./wake.ts"

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
  const database = openOutage(log, {
    lost: "the database can't be reached; trying again",
    back: "the database can be reached again",
  })
  const pooled = options.databaseUrl !== options.databaseDirectUrl
  const db = openDatabase({
    url: options.databaseUrl,
    pooled,
    onIdleError: (error) => database.failed(connectionRefusal(error, { url: options.databaseUrl }) ?? error),
    onRefused: (error) => database.failed(error),
    onConnected: () => database.worked(),
    ...(databaseConnections !== undefined && { connectionsMax: databaseConnections }),
    ...(clockOffset !== undefined && { clockOffset }),
  })
  resources.defer(() => db.destroy())
  if (!pooled) await assertOwnSessions(db)
  await migrate(db)
  const notifications = openOutage(log, {
    lost: "notifications of the database are missed, so changes are seen later; connecting again",
    back: "notifications of the database are received again",
  })
  const waker = await openWaker({
    url: options.databaseDirectUrl,
    setting: pooled ? "DATABASE_DIRECT_URL" : "DATABASE_URL",
    onError: (error) => notifications.failed(error),
    onConnected: () => notifications.worked(),
  })
  resources.defer(() => waker.close())
  const committed = (): void => {
    waker.wake("events")
    waker.wake("operations")
  }
  return { db, waker, committed }
}
