import { setSession } from "@stillframe/domain/postgres/session"
import { Kysely, sql } from "kysely"
import { Pool, types, type ClientBase } from "pg"
import { repeatOnConflict } from "./connection/conflicts.ts"
import { PatientDialect } from "./connection/driver.ts"
import { PooledClient } from "./connection/pooled-client.ts"
import { PreparingClient } from "./connection/prepared.ts"
import type { Database, Schema } from "./schema.ts"

export interface DatabaseOptions {
  readonly url: string
  /** Connections at most. */
  readonly connectionsMax?: number
  /** A pooler in transaction mode: the next statement may meet another connection, so none is prepared. */
  readonly pooled?: boolean
  /**
   * Called with the error of a connection that broke while nobody used it; the pool replaces it by itself.
   */
  readonly onIdleError: (error: Error) => void
  /** How long a query waits for a connection; 10 s unless told otherwise. */
  readonly acquireMsMax?: number
  /** Called when no connection could be made. */
  readonly onRefused?: (error: unknown) => void
  readonly onConnected?: () => void
  /** Moves `clock()` for every connection of this pool: an interval such as `1 hour`. Tests only. */
  readonly clockOffset?: string
}

/** The pool that a process owns and closes with `destroy()`. */
export type OwnedDatabase = Kysely<Schema>

export function openDatabase({
  url,
  connectionsMax = 10,
  acquireMsMax = 10_000,
  pooled = false,
  onIdleError,
  onRefused,
  onConnected,
  clockOffset,
}: DatabaseOptions): OwnedDatabase {
  const pool = new Pool({
    connectionString: url,
    max: connectionsMax,
    connectionTimeoutMillis: acquireMsMax,
    fallback_application_name: "stillframe",
    types: { getTypeParser },
    Client: pooled ? PooledClient : PreparingClient,
    // oxlint-disable-next-line typescript/no-misused-promises -- the pool awaits it
    onConnect: pooled ? reachPostgres : prepareSession,
    ...(clockOffset !== undefined && {
      options: `-c stillframe.clock_offset=${clockOffset.replaceAll(" ", "\\ ")}`,
    }),
  })
  // Without a listener, the error of an idle client ends the process.
  pool.on("error", (error) => {
    // A pool that is being closed may lose its last connections to a server that is being closed too.
    if (!pool.ending) onIdleError(error)
  })
  // A connection in use or being closed: its query, if there is one, rejects by itself.
  pool.on("connect", (client) => {
    client.on("error", () => undefined)
    onConnected?.()
  })
  return new Kysely<Schema>({ dialect: new PatientDialect(pool, onRefused) })
}

const sessionMsMax = 10_000

/** A pooler takes connections while Postgres is away, and only a query tells. */
async function reachPostgres(client: ClientBase): Promise<void> {
  const query = { text: "select 1", query_timeout: sessionMsMax }
  await client.query(query)
}

/** The pool waits for it before it hands out the connection. */
async function prepareSession(client: ClientBase): Promise<void> {
  // pg's types lack the time-out of a query.
  const query = { text: setSession, query_timeout: sessionMsMax }
  await client.query(query)
}

const int8Oid = 20

// Byte counts and sequences stay far below 2^53.
const getTypeParser: typeof types.getTypeParser = (oid: number, format?: "text" | "binary") =>
  oid === int8Oid && format !== "binary" ? Number : types.getTypeParser(oid, format)

/** The database's clock: the only one that leases, deadlines and retries are measured by. */
export const clock = sql<Date>`clock()`

/** The present time of `clock()`. */
export async function now(db: Database): Promise<Date> {
  const { rows } = await sql<{ now: Date }>`select clock() as now`.execute(db)
  return rows[0]?.now ?? new Date(0)
}

/** `clock()` moved by so many milliseconds. */
export function clockPlus(ms: number): ReturnType<typeof sql<Date>> {
  return sql<Date>`clock() + ${ms} * interval '1 millisecond'`
}

/**
 * Runs `work` in one transaction; `work` gets the database to hand to the stores. Rows are locked in the
 * order instance, snapshot, operation. Two transactions that touch several operations may still meet in a
 * deadlock: the one that Postgres ends is run again, so `work` must do nothing but talk to the database.
 */
export function inTransaction<T>(db: OwnedDatabase, work: (tx: Database) => Promise<T>): Promise<T> {
  // Said each time: a transaction-mode pooler's connections keep the database's default.
  return repeatOnConflict(() => db.transaction().setIsolationLevel("read committed").execute(work))
}
