import { compressQueue } from "@stillframe/domain/queues"
import { sql } from "kysely"
import { clock, clockPlus, inTransaction, type OwnedDatabase } from "../client.ts"
import { createOperation, type ClaimedOperation } from "../operations/operations.ts"
import type { Database } from "../schema.ts"
import type { SnapshotRow } from "./snapshots.ts"

/**
 * Parameters of a verification that gives way to all other work of its pool, and then ends without a verdict.
 */
const scrubParams = { scrub: true } as const

export function isScrub({ params }: ClaimedOperation): boolean {
  return params["scrub"] === true
}

/**
 * Has a snapshot's files verified: the id of the operation, of one that already waits or runs if there is
 * one. The caller has locked the row.
 */
export async function requestVerification(
  tx: Database,
  { id: snapshotId, pool }: Pick<SnapshotRow, "id" | "pool">,
): Promise<string> {
  const pending = await tx
    .selectFrom("operations")
    .select("id")
    .where("snapshot_id", "=", snapshotId)
    .where("kind", "=", "verify")
    .where("state", "in", ["queued", "running"])
    .where(sql<boolean>`params ->> 'scrub' is null`)
    .executeTakeFirst()
  return pending?.id ?? createOperation(tx, { kind: "verify", queue: compressQueue(pool), snapshotId })
}

/** The result of reading a snapshot's files. */
export interface Verdict {
  /** The difference from the capture; undefined: none. */
  readonly damage: string | undefined
  /** Hashes of callers' disks, by file name. */
  readonly baseSha256: Readonly<Record<string, string>>
}

/**
 * Writes a verdict, fenced by the memory file that was read: a bad one puts the snapshot into quarantine, a
 * good one takes it out. Undefined: the row names other files by now, so the verdict is of nothing.
 */
export async function recordVerdict(
  tx: Database,
  read: SnapshotRow,
  { damage, baseSha256 }: Verdict,
): Promise<SnapshotRow | undefined> {
  const state =
    damage === undefined
      ? { verified_at: clock, corrupted_at: null, error_code: null, error_message: null }
      : { corrupted_at: clock, error_code: "corrupted" as const, error_message: damage }
  return tx
    .updateTable("snapshots")
    .set({ ...state, base_sha256: JSON.stringify(baseSha256) })
    .where("id", "=", read.id)
    .where("status", "=", "ready")
    .where(sql<boolean>`memory_file is not distinct from ${read.memory_file}`)
    .returningAll()
    .executeTakeFirst()
}

/**
 * If nothing else is to be done in the pool: has the snapshot verified whose last verification is the longest
 * ago, and longer than `intervalMs`. Its id, or undefined. Workers that ask at the same time get one between
 * them.
 */
export function startScrub(
  db: OwnedDatabase,
  { pool, intervalMs }: { pool: string; intervalMs: number },
): Promise<string | undefined> {
  return inTransaction(db, async (tx) => {
    const { rows } = await sql<{ mine: boolean }>`
      select pg_try_advisory_xact_lock(hashtextextended(${`scrub ${pool}`}, 0)) as mine`.execute(tx)
    if (rows[0]?.mine !== true || (await poolBusy(tx, pool))) return undefined
    const snapshot = await tx
      .selectFrom("snapshots")
      .select("id")
      .where("pool", "=", pool)
      .where("status", "=", "ready")
      .where("corrupted_at", "is", null)
      .where(verifiedOrCaptured, "<", clockPlus(-intervalMs))
      .orderBy(verifiedOrCaptured)
      .limit(1)
      .executeTakeFirst()
    if (snapshot === undefined) return undefined
    await createOperation(tx, {
      kind: "verify",
      queue: compressQueue(pool),
      snapshotId: snapshot.id,
      params: scrubParams,
    })
    return snapshot.id
  })
}

const verifiedOrCaptured = sql<Date>`coalesce(verified_at, captured_at)`

/** True if work other than a scrub waits for a pool's workers. */
export async function workWaits(db: Database, pool: string): Promise<boolean> {
  const { rows } = await sql`
    select from operations
    where state = 'queued' and queue = ${compressQueue(pool)} and not_before <= ${clock} and params ->> 'scrub' is null
    limit 1`.execute(db)
  return rows.length > 0
}

async function poolBusy(tx: Database, pool: string): Promise<boolean> {
  const { rows } = await sql`
    select from operations where state in ('queued', 'running') and queue = ${compressQueue(pool)} limit 1`.execute(
    tx,
  )
  return rows.length > 0
}
