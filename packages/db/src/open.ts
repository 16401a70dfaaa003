import { openDatabase, type OwnedDatabase } from "./client.ts"
import { migrate } from "./migrate.ts"
import { assertOwnSessions } from "./requirements.ts"
import { openWaker, type Waker } from "./wake.ts"

export interface OpenOptions {
  readonly databaseUrl: string
  /** Reaches Postgres itself where `databaseUrl` is a transaction-mode pooler. */
  readonly databaseDirectUrl: string
  /** Most connections of the pool, 10 by default. The one for notifications comes on top. */
  readonly databaseConnections?: number | undefined
  readonly log: { warn(fields: object, message: string): void }
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
 * What every process of ours starts with: the pool, the schema up to date, and the connection for waking each other.
 * Parts of one process share what is `shared`; its opener closes it.
 */
export async function openMigrated(
  resources: AsyncDisposableStack,
  options: OpenOptions,
  shared?: OpenedDatabase,
): Promise<OpenedDatabase> {
  if (shared !== undefined) return shared
  const { log, clockOffset, databaseConnections } = options
  const pooled = options.databaseUrl !== options.databaseDirectUrl
  const db = openDatabase({
    url: options.databaseUrl,
    pooled,
    onIdleError: (err) => log.warn({ err }, "idle database connection lost"),
    ...(databaseConnections !== undefined && { connectionsMax: databaseConnections }),
    ...(clockOffset !== undefined && { clockOffset }),
  })
  resources.defer(() => db.destroy())
  if (!pooled) await assertOwnSessions(db)
  await migrate(db)
  const waker = await openWaker({
    url: options.databaseDirectUrl,
    onError: (err) => log.warn({ err }, "connection for notifications lost"),
  })
  resources.defer(() => waker.close())
  const committed = (): void => {
    waker.wake("events")
    waker.wake("operations")
  }
  return { db, waker, committed }
}
