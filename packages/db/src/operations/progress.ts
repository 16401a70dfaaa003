import type { SnapshotProgress } from "@stillframe/domain/events"
import { sql } from "kysely"
import type { Waker } from "../connection/wake.ts"
import type { Database } from "../schema.ts"

const intervalMs = 1_000

/**
 * Writes how far the work on a snapshot is, 0 to 1, at most once a second, and tells it to whoever listens.
 * It is shown and never decided upon, so a write is not waited for, and one that fails is only told to
 * `onError`.
 */
export function progressWriter(
  db: Database,
  snapshotId: string,
  onError: (error: unknown) => void,
): (progress: number) => void {
  let writtenAt = performance.now()
  return (progress) => {
    if (performance.now() - writtenAt < intervalMs) return
    writtenAt = performance.now()
    writeProgress(db, snapshotId, progress).catch(onError)
  }
}

async function writeProgress(db: Database, snapshotId: string, progress: number): Promise<void> {
  const written = await db
    .updateTable("snapshots")
    .set({ progress })
    .where("id", "=", snapshotId)
    // A finished operation has no progress.
    .where((row) => row.or([row("status", "=", "capturing"), row("compression_state", "=", "compressing")]))
    .returning(["id", "source_instance_id", "status", "compression_state"])
    .executeTakeFirst()
  if (written === undefined) return
  const { id: snapshot_id, ...state } = written
  const told: SnapshotProgress = { snapshot_id, ...state, progress }
  // A statement of its own: a transaction that also writes would hold the notifications' lock across its
  // fsync.
  await sql`select pg_notify('progress', ${JSON.stringify(told)})`.execute(db)
}

/** Calls `listener` with all progress that is written anywhere. Returns the way to stop. */
export function listenForProgress(waker: Waker, listener: (progress: SnapshotProgress) => void): () => void {
  return waker.listen("progress", (payload) => {
    const progress = parse(payload)
    if (progress !== undefined) listener(progress)
  })
}

/** Any user of the database can notify on its channels, so a message is validated. */
function parse(payload: string): SnapshotProgress | undefined {
  try {
    const told = JSON.parse(payload) as SnapshotProgress | null
    return typeof told?.snapshot_id === "string" ? told : undefined
  } catch {
    return undefined
  }
}
