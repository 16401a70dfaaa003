import { sql } from "kysely"
import { clockPlus, inTransaction, type OwnedDatabase } from "../client.ts"
import { readEventHead } from "./head.ts"

const removedPerRound = 1_000

/**
 * Removes some of the events that are older than `keptMs`, with their deliveries; returns how many. The feed
 * stays whole from its oldest event on: nothing behind one that is younger, or still to be delivered
 * somewhere, is removed before it. A webhook that is disabled holds nothing up: what waits for it goes with
 * its event.
 */
export function removeOldEvents(db: OwnedDatabase, keptMs: number): Promise<number> {
  return inTransaction(db, async (tx) => {
    const { sequence: head, oldest: from } = await readEventHead(tx)
    const { rows } = await sql<{ sequence: number }>`
      select sequence from events
      where sequence >= ${from} and sequence < ${from + removedPerRound}
        and (occurred_at > ${clockPlus(-keptMs)} or exists (
          select from deliveries where deliveries.sequence = events.sequence and ${toBeMade}))
      order by sequence limit 1`.execute(tx)
    const oldest = rows[0]?.sequence ?? Math.min(from + removedPerRound, head + 1)
    if (oldest === from) return 0
    // One that has become to be made meanwhile, because it is pending again or its webhook is enabled, stays,
    // so the removal of its event fails, and the next round stops before it. Who enables a webhook during
    // this statement comes too late for what is removed: a dispatcher finds it gone, and if it has claimed
    // one just before, at most sends it.
    await tx
      .deleteFrom("deliveries")
      .where("sequence", ">=", from)
      .where("sequence", "<", oldest)
      .where(sql<boolean>`not ${toBeMade}`)
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

/** True for a delivery that is still to be made. */
const toBeMade = sql`(state = 'pending' and exists (
  select from webhooks where webhooks.id = deliveries.webhook_id and webhooks.enabled))`
