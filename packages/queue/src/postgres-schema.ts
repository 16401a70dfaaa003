import { setSession } from "@stillframe/domain/postgres-session"
import { MIGRATION_ADVISORY_LOCK_KEY, runMigrations } from "bullmq"
import { Client } from "pg"

/** Where BullMQ's PostgreSQL backend keeps its tables; `runMigrations` makes it. */
export const bullSchema = "bullmq"

// undefined_table, undefined_function, undefined_column, undefined_object, invalid_schema_name
const schemaErrorCodes = new Set(["42P01", "42883", "42703", "42704", "3F000"])

/** Whether an error says that the backend's tables or functions are not all there. */
export function isSchemaError(error: unknown): boolean {
  return schemaErrorCodes.has((error as { code?: string } | null)?.code ?? "")
}

/** How many relations and functions the schema holds: fewer than after its migration means that some were lost. */
export async function countObjects(client: Pick<Client, "query">): Promise<number> {
  const { rows } = await client.query<{ count: number }>(
    `select ((select count(*) from pg_class where relnamespace = to_regnamespace($1))
           + (select count(*) from pg_proc where pronamespace = to_regnamespace($1)))::int as count`,
    [bullSchema],
  )
  return rows[0]?.count ?? 0
}

/** Brings the schema up to date; processes that start together take turns. Returns how many objects it then holds. */
export function migrateSchema(url: string): Promise<number> {
  return withClient(url, async (client) => {
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
export function rebuildSchema(url: string, expected: number): Promise<void> {
  return withClient(url, (client) => rebuild(client, expected))
}

async function rebuild(client: Client, expected: number): Promise<void> {
  await client.query("begin")
  // The lock of BullMQ's own migrator, so that nobody drops what another one has just built.
  await client.query("select pg_advisory_xact_lock($1, hashtext($2))", [
    MIGRATION_ADVISORY_LOCK_KEY,
    bullSchema,
  ])
  if ((await countObjects(client)) < expected)
    await client.query(`drop schema if exists ${bullSchema} cascade`)
  await client.query("commit")
  await runMigrations(client, bullSchema)
}

async function withClient<T>(url: string, work: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({
    connectionString: url,
    connectionTimeoutMillis: 10_000,
    fallback_application_name: "stillframe queue",
  })
  await client.connect()
  try {
    await client.query(setSession)
    return await work(client)
  } finally {
    await client.end()
  }
}
