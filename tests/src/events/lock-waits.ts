import type { OwnedDatabase } from "@stillframe/db/client"
import { sql } from "kysely"
import { expect } from "vitest"

/**
 * Resolves once each of `works` has ended or waits for a lock that somebody else holds. They may not do both
 * in turn.
 */
export async function endedOrWaiting(
  db: OwnedDatabase,
  ...works: readonly Promise<unknown>[]
): Promise<void> {
  let ended = 0
  const count = (): void => void (ended += 1)
  for (const work of works) void work.then(count, count)
  await expect.poll(async () => ended + (await waiting(db))).toBe(works.length)
}

async function waiting(db: OwnedDatabase): Promise<number> {
  const { rows } = await sql`select from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock'`.execute(db)
  return rows.length
}
