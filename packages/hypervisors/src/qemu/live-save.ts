import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { setUpMigration } from "./migration.ts"
import type { Monitor } from "./qmp.ts"
import type { VmStatus } from "./resume.ts"

/** QEMU 7.2 lets the guest go by itself, before its first pages are saved, and it can then stand still for good. */
const MAJOR_MIN = 10
const POLL_MS = 1
const CONT_TIMEOUT_MS = 10_000

/** Whether a QEMU of this version, for example `10.0.2`, saves memory while its guest runs. */
export const savesLive = (version: string): boolean => Number(version.split(".")[0]) >= MAJOR_MIN

export const tooOld = (version: string): string =>
  `QEMU ${version} can't save memory while its guest runs, that needs QEMU ${MAJOR_MIN}`

/**
 * Makes the next migration one that writes memory as it was at its start while the guest goes on (`background-snapshot`). Throws
 * `not_supported` where this QEMU or its kernel can't.
 */
export async function setUpLiveSave(monitor: Monitor): Promise<void> {
  if (!savesLive(monitor.version))
    throw new StillframeError("not_supported", `${tooOld(monitor.version)}; use the paused capture`)
  try {
    await setUpMigration(monitor, { background: true })
  } catch (error) {
    if (!(error instanceof StillframeError) || error.code !== "hypervisor_failed") throw error
    throw new StillframeError(
      "not_supported",
      `${error.message}; a live capture needs userfaultfd with write protection: let QEMU's user open /dev/userfaultfd or set vm.unprivileged_userfaultfd=1, or use the paused capture`,
      { cause: error },
    )
  }
}

interface MigrationProgress {
  ram?: { normal: number; duplicate: number }
}

/**
 * Resolves when a background save holds the devices' state and guards the memory: only from then on may the guest go on. No event
 * says so; `active` comes before it. The thread that saves counts its first page after both, so a count is the proof. Rejects as
 * `ended` does, the promise of the save's end.
 */
export async function untilStateSaved(monitor: Monitor, ended: Promise<void>): Promise<void> {
  const over = new AbortController()
  try {
    await Promise.race([untilFirstPage(monitor, over.signal), ended])
  } finally {
    over.abort()
  }
}

async function untilFirstPage(monitor: Monitor, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const { ram } = await monitor.execute<MigrationProgress>("query-migrate")
    if (ram !== undefined && ram.normal + ram.duplicate > 0) return
    await delay(POLL_MS)
  }
}

/** Lets the guest go on while its memory is being saved. Throws `timeout` when it does not run within 10 s. */
export async function continueDuringSave(monitor: Monitor): Promise<void> {
  for (const end = performance.now() + CONT_TIMEOUT_MS; ; await delay(POLL_MS)) {
    await monitor.execute("cont")
    const { running, status } = await monitor.execute<VmStatus>("query-status")
    if (running) return
    if (performance.now() > end)
      throw new StillframeError("timeout", `the VM does not go on during its save (it is ${status})`)
  }
}
