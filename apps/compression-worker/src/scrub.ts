import { startScrub } from "@stillframe/db/snapshots/verifications"
import type { Worker } from "./worker.ts"

/**
 * Has the snapshot verified again whose last verification is the longest ago, if that is too long and the
 * pool is idle.
 */
export async function scrub({
  config: { pool, scrubIntervalMs },
  db,
  committed,
  log,
}: Worker): Promise<void> {
  if (scrubIntervalMs === 0) return
  const snapshotId = await startScrub(db, { pool, intervalMs: scrubIntervalMs })
  if (snapshotId === undefined) return
  log.info({ snapshotId }, "snapshot to be verified again")
  committed()
}
