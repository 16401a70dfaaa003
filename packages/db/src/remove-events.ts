import { sql } from "kysely"
import { clockPlus, inTransaction, type OwnedDatabase } from "./client.ts"
import { readEventHead } from "./event-head.ts"

const removedPerRound = 1_000

/**
 * Removes some of the events that are older than `keptMs`, with their deliveries; returns how many. The feed stays whole
 * from its oldest event on: nothing behind one that is younger, or still to be delivered somewhere, is removed before it.
 */
export function removeOldEvents(db: OwnedDatabase, keptMs: number): Promise<number> {
  return inTransaction(db, async (tx) => {
    const { sequence: head, oldest: from } = await readEventHead(tx)
    const { rows } = await sql<{ sequence: number }>`
      select sequence from events
      where sequence >= ${from} and sequence < ${from + removedPerRound}
        and (occurred_at > ${clockPlus(-keptMs)} or exists (
          select from deliveries where deliveries.sequence = events.sequence and state = 'pending'))
      order by sequence limit 1`.execute(tx)
    const oldest = rows[0]?.sequence ?? Math.min(from + removedPerRound, head + 1)
    if (oldest === from) return 0
    // One that became pending again meanwhile stays, so the removal of its event fails, and the next round stops before it.
    await tx
      .deleteFrom("deliveries")
      .where("sequence", ">=", from)
      .where("sequence", "<", oldest)
      .where("state", "<>", "pending")
      .execute()
    await tx.deleteFrom("events").where("sequence", ">=", from).where("sequence", "<", oldest).execute()
    // Last: whoever numbers waits for this row. Greatest: another remover may have been here first.
    await tx
      .updateTable("event_head")
      .set({ oldest: sql`greatest(oldest, ${oldest}::bigint)` })
      .execute()
    return oldest - from
  })
}
