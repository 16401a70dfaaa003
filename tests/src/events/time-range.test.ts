import { sequencesWithin } from "@stillframe/db/webhooks/redeliver"
import { testDatabase } from "@stillframe/testing/database"
import { sql } from "kysely"
import { expect, test } from "vitest"

test("the numbers of a time are found without looking at the rest of the log", async () => {
  await using database = await testDatabase()
  const { db } = database
  const first = Date.parse("2026-01-01T00:00:00.000Z")
  const at = (minute: number): Date => new Date(first + minute * 60_000)
  // One a minute, of which every other pair has changed places, and one that has no number yet.
  await sql`
    insert into events (event_id, sequence, type, subject_kind, subject_id, data, occurred_at)
    select n, nullif(n, 20001), 'snapshot.created', 'snapshot', 'a', '{}',
      ${at(0)}::timestamptz + (case n % 4 when 1 then n + 1 when 2 then n - 1 else n end) * interval '1 minute'
    from generate_series(1, 20001) n`.execute(db)
  await sql`analyze events`.execute(db)

  for (const [since, until, from, to] of [
    [10, 14, 9, 14],
    [19_400, 30_000, 19_400, 20_000],
    [12_002, 12_003, 12_001, 12_001],
  ] as const)
    await db.transaction().execute(async (tx) => {
      const found = await sequencesWithin(tx, { since: at(since), until: at(until) })
      const { rows } = await sql<{ read: number }>`
        select seq_tup_read + idx_tup_fetch as read from pg_stat_xact_user_tables where relname = 'events'`.execute(
        tx,
      )

      expect(found).toEqual({ from, to })
      // Of all three together, where they share a connection.
      expect(rows[0]?.read).toBeLessThan(700)
    })
  expect(await sequencesWithin(db, { since: at(-10), until: at(0) })).toBe(undefined)
})
