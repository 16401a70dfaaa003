import { StillframeError } from "@stillframe/domain/errors"
import { createId } from "@stillframe/domain/ids"
import { sql } from "kysely"
import { clock, clockPlus, inTransaction, type OwnedDatabase } from "./client.ts"
import { hurryDeletion } from "./operations.ts"
import type { Database } from "./schema.ts"
import { lockSnapshot, type SnapshotRow } from "./snapshots.ts"

/** Longer than any restore may take; the reader also holds a hard link where the file system allows one. */
const readerLeaseMs = 15 * 60_000

/**
 * Registers a reader of a ready snapshot's files and returns the row that names them. Taking a lease and marking the raw
 * file as removing both lock the snapshot's row: without it a reader can register while the file goes (measured).
 */
export function takeReader(
  db: OwnedDatabase,
  snapshotId: string,
): Promise<{ readerId: string; snapshot: SnapshotRow }> {
  return inTransaction(db, async (tx) => {
    const snapshot = await lockSnapshot(tx, snapshotId)
    if (snapshot === undefined) throw new StillframeError("not_found", "snapshot not found")
    if (snapshot.status !== "ready")
      throw new StillframeError("conflict", `snapshot ${snapshotId} is ${snapshot.status}, not ready`)
    const readerId = createId()
    await tx
      .insertInto("snapshot_readers")
      .values({ id: readerId, snapshot_id: snapshotId, expires_at: clockPlus(readerLeaseMs) })
      .execute()
    return { readerId, snapshot }
  })
}

export async function releaseReader(db: Database, readerId: string): Promise<void> {
  const released = await db
    .deleteFrom("snapshot_readers")
    .where("id", "=", readerId)
    .returning("snapshot_id")
    .executeTakeFirst()
  if (released !== undefined) await hurryDeletion(db, released.snapshot_id)
}

export async function hasReaders(db: Database, snapshotId: string): Promise<boolean> {
  const reader = await db
    .selectFrom("snapshot_readers")
    .select("id")
    .where("snapshot_id", "=", snapshotId)
    .where("expires_at", ">", clock)
    .limit(1)
    .executeTakeFirst()
  return reader !== undefined
}

export interface RawFile {
  readonly snapshotId: string
  readonly payload: string
}

/** Snapshots of a pool whose raw memory file may go now: marked as removing, and read by nobody. */
export async function removableRawFiles(db: Database, pool: string): Promise<RawFile[]> {
  return db
    .selectFrom("snapshots")
    .select(["id as snapshotId", sql<string>`payload`.as("payload")])
    .where("pool", "=", pool)
    .where("raw_state", "=", "removing")
    .where("payload", "is not", null)
    .where((row) =>
      row.not(
        row.exists(
          row
            .selectFrom("snapshot_readers")
            .select("snapshot_readers.id")
            .whereRef("snapshot_readers.snapshot_id", "=", "snapshots.id")
            .where("expires_at", ">", clock),
        ),
      ),
    )
    .limit(100)
    .execute()
}

export async function markRawRemoved(db: Database, snapshotId: string): Promise<void> {
  await db
    .updateTable("snapshots")
    .set({ raw_state: "removed" })
    .where("id", "=", snapshotId)
    .where("raw_state", "=", "removing")
    .execute()
}
