import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { logHasWhy } from "../../refusal.ts"
import type { Monitor } from "./qmp.ts"

/** Resuming has a deadline of its own: whatever ended the work, the guest runs again. */
const RESUME_TIMEOUT_MS = 30_000
const RETRY_MS = 3
const migrationUnderWay = new Set([
  "setup",
  "active",
  "device",
  "pre-switchover",
  "cancelling",
  "wait-unplug",
])

/** States that a guest may reach by itself right after `cont`. */
const stoppedByItself: ReadonlySet<string> = new Set(["io-error", "guest-panicked", "watchdog", "suspended"])

export interface VmStatus {
  status: string
  running: boolean
}

interface MigrationInfo {
  /** Absent when there never was a migration. */
  readonly status?: string
  /** Why this VM cannot be saved, in QEMU's words: a device that it cannot migrate. Absent where it can. */
  readonly "blocked-reasons"?: readonly string[]
}

export async function queryMigration(monitor: Monitor): Promise<MigrationInfo> {
  return await monitor.execute<MigrationInfo>("query-migrate")
}

export async function migrationStatus(monitor: Monitor): Promise<string | undefined> {
  return (await queryMigration(monitor)).status
}

export const isUnderWay = (status: string | undefined): boolean =>
  status !== undefined && migrationUnderWay.has(status)

/**
 * Makes a VM run, from whatever a dead or failed capture left: a save under way is cancelled first (`cont`
 * during one would move its point in time), then `cont` is repeated until the state reads running, or that of
 * a guest that ran and has stopped by itself, because it is refused for some milliseconds after a save ended.
 * Throws `timeout` when it does not run within 30 s, and whatever the monitor throws.
 */
export async function ensureRunning(monitor: Monitor): Promise<void> {
  const end = performance.now() + RESUME_TIMEOUT_MS
  await endMigration(monitor)
  for (let refusal: string | undefined; ; await delay(RETRY_MS)) {
    let accepted = true
    try {
      await monitor.execute("cont")
    } catch (error) {
      if (!(error instanceof StillframeError) || error.code !== "hypervisor_failed") throw error
      refusal = error.said
      accepted = false
    }
    const { status, running } = await monitor.execute<VmStatus>("query-status")
    // It ran, and has stopped by itself: to let it go on again is its watch's business.
    if (running || (accepted && stoppedByItself.has(status))) return
    if (performance.now() > end) {
      throw new StillframeError("timeout", `the VM did not resume (it is ${status}); ${logHasWhy}`, {
        said: refusal,
      })
    }
  }
}

/** Cancels a save that is under way and waits until QEMU says that it has ended. */
export async function endMigration(monitor: Monitor): Promise<void> {
  if (!isUnderWay(await migrationStatus(monitor))) return
  await monitor.execute("migrate_cancel")
  const end = performance.now() + RESUME_TIMEOUT_MS
  while (isUnderWay(await migrationStatus(monitor))) {
    if (performance.now() > end)
      throw new StillframeError("timeout", "QEMU does not end its save; look at its qemu.log")
    await delay(RETRY_MS)
  }
}
