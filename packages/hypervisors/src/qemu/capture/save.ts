import { setTimeout as delay } from "node:timers/promises"
import { StillframeError, type ErrorCode } from "@stillframe/domain/errors"
import { monotonicMs } from "@stillframe/domain/postgres/database-clock"
import type { Capture, CaptureRequest } from "../../capture.ts"
import type { DiskFreeze } from "../../disks/disk-freeze.ts"
import { orResume } from "../../process/ensure-runs.ts"
import type { Monitor } from "../monitor/qmp.ts"
import { endMigration, ensureRunning } from "../monitor/resume.ts"
import { continueDuringSave, untilStateSaved } from "./live-save.ts"
import type { MemorySink } from "./memory-sink.ts"
import { watchSave } from "./watch-save.ts"

/** The deadlines bound a live save too. One that is kept paused is never live. */
export interface SaveOptions extends CaptureRequest {
  /** Absolute; must not exist. */
  memoryFile: string
  /**
   * The VM is as it was before the pause, after a failure as well, and what follows may take long. Not called
   * where it was left paused or could not be resumed.
   */
  afterResume?: () => void | Promise<void>
}

/** A save for which everything is prepared that can be prepared while the VM runs. */
interface Save extends SaveOptions {
  openMonitor: () => Promise<Monitor>
  wasRunning: boolean
  freeze: DiskFreeze
  sink: MemorySink
}

type Saved = Pick<Capture, "pauseMs" | "capturedAtMs">

/** A copier that hangs can hold up a guest whose memory is guarded, and with it the monitor. */
const MONITOR_PATIENCE_MS = 2000
const REOPEN_MS = 2000
const REOPEN_RETRY_MS = 20

/**
 * Pauses the VM, freezes its disks, saves its memory and resumes it, unless it is to be kept paused. After a
 * failure it is as it was before. Throws as `captureVm` does.
 */
export async function savePaused(monitor: Monitor, save: Save): Promise<Saved> {
  const { sink } = save
  const started = performance.now()
  const endPause = async (): Promise<number> => {
    await (save.wasRunning ? resume(monitor, save) : endMigration(monitor))
    const pauseMs = performance.now() - started
    await save.afterResume?.()
    return pauseMs
  }
  const capturedAtMs = await orResume(async () => {
    const stoppedAtMs = await stopAndFreeze(monitor, save)
    using watch = watchSave(monitor, save)
    sink.copy()
    await watch.during("paused", monitor.execute("migrate", { uri: sink.uri }))
    await watch.during("paused", watch.ended)
    return stoppedAtMs
  }, endPause)
  const pauseMs = save.keepPaused === true ? performance.now() - started : await endPause()
  return { pauseMs, capturedAtMs }
}

/**
 * Pauses a running VM, freezes its disks, saves its devices' state and resumes it; the memory of that moment
 * is saved while the VM runs. After a failure it runs. Throws as `captureVm` does.
 */
export async function saveLive(monitor: Monitor, save: Save): Promise<Saved> {
  const { sink } = save
  const endSave = async (): Promise<void> => {
    const impatience = setTimeout(() => sink.abandon(), MONITOR_PATIENCE_MS)
    await resume(monitor, save).finally(() => clearTimeout(impatience))
  }
  const endPause = async (): Promise<void> => {
    await endSave()
    await save.afterResume?.()
  }
  const started = performance.now()
  using watch = watchSave(monitor, save)
  const capturedAtMs = await orResume(async () => {
    const stoppedAtMs = await stopAndFreeze(monitor, save)
    const stateSaved = untilStateSaved(monitor, watch.ended)
    // A step that fails before has its own error to report.
    stateSaved.catch(() => {})
    await watch.during("paused", monitor.execute("migrate", { uri: sink.uri }))
    await watch.during("paused", stateSaved)
    await watch.during(
      "paused",
      continueDuringSave(monitor, () => sink.copy()),
    )
    return stoppedAtMs
  }, endPause)
  const pauseMs = performance.now() - started
  await orResume(async () => {
    // Not before: the guest need not stand still until the copying process has started.
    sink.copy()
    await save.afterResume?.()
    await watch.during("running", watch.ended)
  }, endSave)
  return { pauseMs, capturedAtMs }
}

/** Resolves with the moment of the guest's state. */
async function stopAndFreeze(
  monitor: Monitor,
  { wasRunning, freeze, signal, onPaused }: Save,
): Promise<number> {
  if (wasRunning) await monitor.execute("stop")
  const stoppedAtMs = monotonicMs()
  onPaused?.()
  await freeze.take()
  signal.throwIfAborted()
  return stoppedAtMs
}

/**
 * Neither a lost connection nor a lost answer is proof of a dead VM, so a second one is tried before the VM
 * is given up.
 */
async function resume(monitor: Monitor, { openMonitor }: Save): Promise<void> {
  try {
    await ensureRunning(monitor)
  } catch (error) {
    if (!hasCode(error, ["hypervisor_gone", "hypervisor_untrusted", "timeout"])) throw error
    // QEMU greets the next one when it is rid of this one.
    monitor.close()
    const second = await reopen(openMonitor)
    await ensureRunning(second).finally(() => second.close())
  }
}

/** A process that is just ending takes connections and drops them, which proves nothing yet. */
async function reopen(openMonitor: () => Promise<Monitor>): Promise<Monitor> {
  for (const end = performance.now() + REOPEN_MS; ; await delay(REOPEN_RETRY_MS)) {
    try {
      return await openMonitor()
    } catch (error) {
      const unheard = hasCode(error, ["hypervisor_unavailable", "hypervisor_silent"])
      if (!unheard || performance.now() > end) throw error
    }
  }
}

function hasCode(error: unknown, codes: readonly ErrorCode[]): boolean {
  return error instanceof StillframeError && codes.includes(error.code)
}
