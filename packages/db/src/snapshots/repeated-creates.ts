import { sql } from "kysely"
import { clock, clockPlus } from "../client.ts"
import type { Database } from "../schema.ts"
import type { CreateTry, SnapshotRow } from "./snapshots.ts"

/** How old a create may be for a client's own retry to be the same request. */
const retriedWithinMs = 2 * 60_000

/**
 * The snapshot that an earlier try of the same create has made, if this one may be answered with it: it still
 * waits to be captured, or nobody knows that its answer was sent. Else the caller means a new point in time.
 */
export async function findEarlierTry(
  db: Database,
  { hash, retry }: CreateTry,
): Promise<SnapshotRow | undefined> {
  return (
    db
      .selectFrom("snapshots")
      .selectAll()
      .where("request_hash", "=", hash)
      .where("request_retry", "<", retry)
      .where("created_at", ">", clockPlus(-retriedWithinMs))
      // One of the future is of a time when the database's clock was ahead.
      .where("created_at", "<=", clock)
      .where("status", "!=", "deleting")
      .where((row) => row.or([row("status", "=", "queued"), row("answered_at", "is", null)]))
      .orderBy("created_at", "desc")
      .limit(1)
      .executeTakeFirst()
  )
}

/**
 * Waits for the transactions of other tries of the same create, and keeps further ones waiting until this
 * one's end.
 */
export async function lockTries(tx: Database, { hash }: CreateTry): Promise<void> {
  await sql`select pg_advisory_xact_lock(hashtextextended(${hash}, 0))`.execute(tx)
}

/** Notes that the answers to these creates were sent. */
export async function markAnswered(db: Database, snapshotIds: readonly string[]): Promise<void> {
  await db
    .updateTable("snapshots")
    .set({ answered_at: clock })
    .where("id", "in", snapshotIds)
    .where("answered_at", "is", null)
    .execute()
}
