import { StillframeError } from "@stillframe/domain/errors"
import { unsavable } from "@stillframe/domain/restorable"
import type { Monitor } from "../monitor/qmp.ts"
import { isUnderWay, queryMigration, type VmStatus } from "../monitor/resume.ts"
import { standstillOf } from "../monitor/standstill.ts"
import { isMergeJob } from "./merge-job.ts"

/**
 * Throws unless the VM is running or plainly paused, with nobody else at work on its memory or disks:
 * `invalid_state`, `conflict`; and `not_supported` where QEMU says that it cannot save the VM. Merges of our
 * own are no one else's work. Gives whether it runs.
 */
export async function assertUndisturbed(monitor: Monitor): Promise<boolean> {
  const { status, running } = await monitor.execute<VmStatus>("query-status")
  // Not "postmigrate": QEMU before 10 aborts when disks that a save has already let go are saved again.
  if (!running && status !== "paused")
    throw new StillframeError(
      "invalid_state",
      (await standstillOf(monitor))?.reason ?? `the VM is ${status}; this needs it running or paused`,
    )
  const jobs = await monitor.execute<{ device: string; type: string }[]>("query-block-jobs")
  const foreign = jobs.find(({ device }) => !isMergeJob(device))
  if (foreign !== undefined) {
    throw new StillframeError(
      "conflict",
      `the disk job ${foreign.device} (${foreign.type}) is under way; wait for its end or cancel it`,
    )
  }
  const migration = await queryMigration(monitor)
  const { "blocked-reasons": blocked = [] } = migration
  if (blocked.length > 0)
    throw new StillframeError("not_supported", unsavable(blocked), { said: blocked.join("; ") })
  if (isUnderWay(migration.status))
    throw new StillframeError("conflict", "a migration of this VM is under way; wait for its end")
  return running
}
