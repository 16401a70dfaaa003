import { StillframeError } from "@stillframe/domain/errors"
import { createId } from "@stillframe/domain/ids"
import { sql } from "kysely"
import { clock, clockPlus, inTransaction, type OwnedDatabase } from "../client.ts"
import { hurryDeletion } from "../operations/operations.ts"
import type { Database } from "../schema.ts"
import { lockSnapshot, requireSound, type SnapshotRow } from "./snapshots.ts"

/**
 * Outlives a database that is away for minutes; the reader also holds a hard link where the file system
 * allows one.
 */
export const readerLeaseMs = 15 * 60_000
const renewalMs = readerLeaseMs / 5

/** A reader of a snapshot's files. The files stay until it is disposed of. */
export interface Reader extends AsyncDisposable {
  /** Names the files. */
  readonly snapshot: SnapshotRow
}

/**
 * Registers a reader of a ready snapshot's files. That and letting a file go both lock the snapshot's row:
 * without it a reader can register while the file goes (measured). Throws `not_found`, or `conflict` for one
 * that is not ready or, unless `evenCorrupted`, in quarantine.
 */
export async function openReader(
  db: OwnedDatabase,
  snapshotId: string,
  {
    evenCorrupted = false,
    onRenewalError,
  }: { evenCorrupted?: boolean; onRenewalError: (error: unknown) => void },
): Promise<Reader> {
  const id = createId()
  const snapshot = await inTransaction(db, async (tx) => {
    const row = await lockSnapshot(tx, snapshotId)
    if (row === undefined) throw new StillframeError("not_found", "snapshot not found")
    if (row.status !== "ready")
      throw new StillframeError("conflict", `snapshot ${snapshotId} is ${row.status}, not ready`)
    if (!evenCorrupted) requireSound(row)
    await tx
      .insertInto("snapshot_readers")
      .values({ id, snapshot_id: snapshotId, expires_at: clockPlus(readerLeaseMs) })
      .execute()
    return row
  })
  const timer = setInterval(() => void renew(db, id).catch(onRenewalError), renewalMs)
  return {
    snapshot,
    async [Symbol.asyncDispose]() {
      clearInterval(timer)
      await release(db, id)
    },
  }
}

async function renew(db: Database, id: string): Promise<void> {
  await db
    .updateTable("snapshot_readers")
    .set({ expires_at: clockPlus(readerLeaseMs) })
    .where("id", "=", id)
    .execute()
}

async function release(db: Database, id: string): Promise<void> {
  const released = await db
    .deleteFrom("snapshot_readers")
    .where("id", "=", id)
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

/** A payload in which memory files lie that its row does not name. */
export interface Superseded {
  readonly snapshotId: string
  readonly payload: string
  /** The one to keep. */
  readonly memoryFile: string
}

/**
 * Payloads of a pool, or that of one snapshot, whose superseded memory files may go now: nobody reads them,
 * and none is being made. Who asks after having listed the files gets an answer that holds for each of them,
 * since new readers take the named one only.
 */
export async function removableMemory(
  db: Database,
  { pool, snapshotId }: { pool: string; snapshotId?: string },
): Promise<Superseded[]> {
  return (
    db
      .selectFrom("snapshots")
      .select([
        "id as snapshotId",
        sql<string>`payload`.as("payload"),
        sql<string>`memory_file`.as("memoryFile"),
      ])
      .where("pool", "=", pool)
      .where("status", "=", "ready")
      .where("superseded", "=", true)
      .where("compression_state", "!=", "compressing")
      // Files in quarantine stay as they were found.
      .where("corrupted_at", "is", null)
      .where("payload", "is not", null)
      .where("memory_file", "is not", null)
      .$if(snapshotId !== undefined, (select) => select.where("id", "=", snapshotId ?? ""))
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
  )
}

export async function markMemoryRemoved(db: Database, { snapshotId, memoryFile }: Superseded): Promise<void> {
  await db
    .updateTable("snapshots")
    .set({ superseded: false })
    .where("id", "=", snapshotId)
    .where("memory_file", "=", memoryFile)
    .execute()
}
