import { MIGRATION_ADVISORY_LOCK_KEY, runMigrations } from "bullmq"
import type { Pool, PoolClient } from "pg"

/** BullMQ's `runMigrations` makes this schema for its PostgreSQL backend. */
export const bullSchema = "bullmq"

// undefined_table, undefined_function, undefined_column, undefined_object, invalid_schema_name
const schemaErrorCodes = new Set(["42P01", "42883", "42703", "42704", "3F000"])

/** True if the error means that a table or function of the backend is missing. */
export function isSchemaError(error: unknown): boolean {
  return schemaErrorCodes.has((error as { code?: string } | null)?.code ?? "")
}

/**
 * How many relations and functions the schema holds: fewer than after its migration means that some were
 * lost.
 */
export async function countObjects(client: Pick<PoolClient, "query">): Promise<number> {
  const { rows } = await client.query<{ count: number }>(
    `select ((select count(*) from pg_class where relnamespace = to_regnamespace($1))
           + (select count(*) from pg_proc where pronamespace = to_regnamespace($1)))::int as count`,
    [bullSchema],
  )
  return rows[0]?.count ?? 0
}

/**
 * Brings the schema up to date; processes that start together take turns. Returns how many objects it then
 * holds.
 */
export function migrateSchema(pool: Pool): Promise<number> {
  return withClient(pool, async (client) => {
    await runMigrations(client, bullSchema)
    try {
      await client.query(`select from ${bullSchema}.job, ${bullSchema}.meta limit 0`)
    } catch (error) {
      if (!isSchemaError(error)) throw error
      // The ledger says that all is there, so only a schema made anew can be trusted.
      await rebuild(client, Infinity)
    }
    return countObjects(client)
  })
}

/** Drops a schema that holds fewer than `expected` objects and makes it anew, with every job in it gone. */
export function rebuildSchema(pool: Pool, expected: number): Promise<void> {
  return withClient(pool, (client) => rebuild(client, expected))
}

async function rebuild(client: PoolClient, expected: number): Promise<void> {
  await client.query("begin")
  // The lock of BullMQ's own migrator: another process may just have built the tables.
  await client.query("select pg_advisory_xact_lock($1, hashtext($2))", [
    MIGRATION_ADVISORY_LOCK_KEY,
    bullSchema,
  ])
  if ((await countObjects(client)) < expected)
    await client.query(`drop schema if exists ${bullSchema} cascade`)
  await client.query("commit")
  await runMigrations(client, bullSchema)
}

/** Works on one connection of the pool and closes it after a failure, because its state is unknown. */
async function withClient<T>(pool: Pool, work: (client: PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect()
  try {
    const result = await work(client)
    client.release()
    return result
  } catch (error) {
    client.release(true)
    throw error
  }
}
