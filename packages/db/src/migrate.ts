import { readdir, readFile } from "node:fs/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { sql } from "kysely"
import { Migrator, type Migration } from "kysely/migration"
import type { OwnedDatabase } from "./client.ts"
import { connectionRefusal } from "./connection/connection-refusal.ts"
import { assertUsable } from "./requirements.ts"

const migrationsDir = new URL("../../../migrations/", import.meta.url)

/**
 * Applies the numbered SQL files of `migrations/` in the order of their names. Processes that start together
 * take turns (Kysely's migrator holds a lock); a database that knows a migration which this program does not
 * is refused.
 */
export async function migrate(db: OwnedDatabase): Promise<void> {
  await assertUsable(db)
  const migrator = new Migrator({ db, provider: { getMigrations } })
  const { error } = await migrator.migrateToLatest()
  if (error !== undefined) {
    const refusal = connectionRefusal(error, { url: undefined })
    if (refusal !== undefined) throw refusal
    const reason = (error as Error).message
    throw new StillframeError(
      "unavailable",
      `the database's schema does not fit this program: ${reason}. Start the program that last migrated it, or a newer one.`,
      { cause: error },
    )
  }
}

async function getMigrations(): Promise<Record<string, Migration>> {
  // Beside them lies `schema.sql`, which is for readers.
  const names = (await readdir(migrationsDir)).filter((name) => /^\d{4}_.+\.sql$/.test(name)).sort()
  const migrations = names.map(async (name) => {
    const text = await readFile(new URL(name, migrationsDir), "utf8")
    // The simple protocol without parameters takes a file of several statements.
    return [name, { up: async (db) => void (await sql.raw(text).execute(db)) } satisfies Migration] as const
  })
  return Object.fromEntries(await Promise.all(migrations))
}
