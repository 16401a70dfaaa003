import type { Database } from "./schema.ts"

const intervalMs = 1_000

/**
 * Writes how far the work on a snapshot is, 0 to 1, at most once a second. It is shown and never decided upon, so a write
 * is not waited for, and one that fails is only told to `onError`.
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
    db.updateTable("snapshots")
      .set({ progress })
      .where("id", "=", snapshotId)
      // What is finished has no progress any more.
      .where((row) => row.or([row("status", "=", "capturing"), row("compression_state", "=", "compressing")]))
      .execute()
      .catch(onError)
  }
}
