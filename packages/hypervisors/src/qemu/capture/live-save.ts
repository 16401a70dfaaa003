import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import type { Monitor } from "../monitor/qmp.ts"
import type { VmStatus } from "../monitor/resume.ts"
import { setUpMigration } from "./migration.ts"

/**
 * QEMU 7.2 lets the guest go by itself, before its first pages are saved, and it can then stand still for
 * good.
 */
const MAJOR_MIN = 10
const POLL_MS = 1
/** Many times what an answer takes. */
const ANSWER_MS = 5
const CONT_TIMEOUT_MS = 10_000

/** True if this version of QEMU, for example `10.0.2`, saves memory while its guest runs. */
export const savesLive = (version: string): boolean => Number(version.split(".")[0]) >= MAJOR_MIN

export const tooOld = (version: string): string =>
  `QEMU ${version} can't save memory while its guest runs, that needs QEMU ${MAJOR_MIN}`

/**
 * Makes the next migration one that writes memory as it was at its start while the guest goes on
 * (`background-snapshot`). Throws `not_supported` where this QEMU or its kernel can't.
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
      "this host cannot save memory while the guest runs: that needs userfaultfd with write protection. Let QEMU's user open /dev/userfaultfd, or set vm.unprivileged_userfaultfd=1, or use the paused capture",
      { cause: error, said: error.said },
    )
  }
}

interface MigrationProgress {
  ram?: { normal: number; duplicate: number }
}

/**
 * Resolves when the next background save holds the devices' state and guards the memory: only from then on
 * may the guest go on. Call it before the command that starts the save. No event says so; `active` comes
 * before it. The thread that saves counts its first page after both, so a count is the proof. Rejects as
 * `ended` does, the promise of the save's end.
 */
export async function untilStateSaved(monitor: Monitor, ended: Promise<void>): Promise<void> {
  const active = Promise.withResolvers<void>()
  const stop = monitor.subscribe(({ event, data }) => {
    if (event === "MIGRATION" && data?.["status"] === "active") active.resolve()
  })
  const over = new AbortController()
  try {
    await Promise.race([active.promise.then(async () => await untilFirstPage(monitor, over.signal)), ended])
  } finally {
    over.abort()
    stop()
  }
}

/**
 * QEMU answers late as long as it saves the devices' state, and at once afterwards: there is nothing to wait
 * for in between.
 */
async function untilFirstPage(monitor: Monitor, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const { ram } = await monitor.execute<MigrationProgress>("query-migrate")
    if (ram !== undefined && ram.normal + ram.duplicate > 0) return
  }
}

/**
 * Lets the guest go on while its memory is being saved. `readOn` is called when no answer comes at once: QEMU
 * may need a page that is guarded before it can give one, and the page waits for whoever reads what is saved.
 * Throws `timeout` when the guest does not run within 10 s.
 */
export async function continueDuringSave(monitor: Monitor, readOn: () => void): Promise<void> {
  const late = setTimeout(readOn, ANSWER_MS)
  try {
    for (const end = performance.now() + CONT_TIMEOUT_MS; ; await delay(POLL_MS)) {
      // QEMU takes them in this order, and both at once are one way there and back.
      const asked = [monitor.execute("cont"), monitor.execute<VmStatus>("query-status")] as const
      const [, { running, status }] = await Promise.all(asked)
      if (running) return
      if (performance.now() > end)
        throw new StillframeError("timeout", `the VM does not resume during its save (it is ${status})`)
    }
  } finally {
    clearTimeout(late)
  }
}
