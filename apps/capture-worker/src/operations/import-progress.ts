import { setImporting } from "@stillframe/db/instances/instances"
import type { Database } from "@stillframe/db/schema"
import type { ImportState } from "@stillframe/domain/instance"
import type { ImportProgress } from "@stillframe/hypervisors/disks/launch-files"

const intervalMs = 1_000

/**
 * Writes how far the import of an instance's files is, at most once a second and not before the first is
 * over: most are done by then. It is shown and never decided upon, so a write is not waited for, and one that
 * fails is only told to `onError`.
 */
export function importWriter(
  db: Database,
  instanceId: string,
  onError: (error: unknown) => void,
): (progress: ImportProgress) => void {
  const startedAt = performance.now()
  let writtenAt = startedAt
  return (progress) => {
    const now = performance.now()
    if (now - writtenAt < intervalMs) return
    writtenAt = now
    setImporting(db, instanceId, importState(progress, now - startedAt)).catch(onError)
  }
}

/** `elapsedMs`: since the import began. */
export function importState({ bytes, totalBytes }: ImportProgress, elapsedMs: number): ImportState {
  const secondsLeft =
    bytes > 0 ? { seconds_left: Math.ceil(((totalBytes - bytes) / bytes) * (elapsedMs / 1_000)) } : {}
  return { bytes, total_bytes: totalBytes, ...secondsLeft }
}
