import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { monotonicMs } from "@stillframe/domain/postgres/database-clock"
import type { CaptureRequest } from "../../capture.ts"
import type { DiskFreeze } from "../../disks/disk-freeze.ts"
import { pauseDeadline } from "../../file-vmm/pause-deadline.ts"
import type { Monitor } from "../monitor/qmp.ts"
import { endMigration, ensureRunning } from "../monitor/resume.ts"
import { continueDuringSave, untilStateSaved } from "./live-save.ts"
import type { MemorySink } from "./memory-sink.ts"
import { migrationEnd } from "./migration.ts"

/** The differences between a VM of ours and an attached one. */
export interface CaptureTarget {
  openMonitor(): Promise<Monitor>
  freezeDisks(monitor: Monitor): Promise<DiskFreeze>
  openSink(): Promise<MemorySink>
}

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

export interface Save extends SaveOptions {
  target: CaptureTarget
  /**
   * The VM goes on as soon as the state of its devices is saved. Only for one that was running and isn't to
   * be kept paused.
   */
  live: boolean
  wasRunning: boolean
  freeze: DiskFreeze
  sink: MemorySink
}

const PROGRESS_MS = 200
/** A copier that hangs can hold up a guest whose memory is guarded, and with it the monitor. */
const MONITOR_PATIENCE_MS = 2000
const REOPEN_MS = 2000
const REOPEN_RETRY_MS = 20

/**
 * Pauses the VM, freezes its disks, saves its memory and lets it go on: after the save, or in a live one
 * before it. After a failure it is as it was before. Throws as `captureVm` does.
 */
export async function pauseAndSave(
  monitor: Monitor,
  save: Save,
): Promise<{ pauseMs: number; capturedAtMs: number }> {
  const { sink, wasRunning } = save
  const started = performance.now()
  let capturedAtMs = monotonicMs()
  let pauseMs: number | undefined
  let failure: unknown
  const onLiveResume = async (): Promise<void> => {
    pauseMs = performance.now() - started
    sink.copy()
    await save.afterResume?.()
  }
  try {
    if (wasRunning) await monitor.execute("stop")
    capturedAtMs = monotonicMs()
    save.onPaused?.()
    await save.freeze.take()
    await saveMemory(monitor, save, onLiveResume)
  } catch (error) {
    failure = error
  }
  if (failure === undefined && (pauseMs !== undefined || save.keepPaused === true))
    return { pauseMs: pauseMs ?? performance.now() - started, capturedAtMs }
  let resumed = false
  try {
    await (wasRunning ? resume(monitor, save) : endMigration(monitor))
    resumed = true
  } catch (error) {
    // A VM that stays paused is worse news than the failure that came before.
    if (failure === undefined || !isGone(error)) failure = error
  }
  if (resumed && pauseMs === undefined) {
    pauseMs = performance.now() - started
    await save.afterResume?.()
  }
  if (failure === undefined) return { pauseMs: pauseMs ?? performance.now() - started, capturedAtMs }
  // QEMU only knows that its pipe broke; the sink knows why.
  throw (await sink.failure()) ?? failure
}

async function saveMemory(monitor: Monitor, save: Save, onLiveResume: () => Promise<void>): Promise<void> {
  const { sink, signal, onProgress } = save
  signal.throwIfAborted()
  const end = migrationEnd(monitor)
  const stop = Promise.withResolvers<never>()
  const onAbort = (): void => stop.reject(signal.reason)
  signal.addEventListener("abort", onAbort, { once: true })
  const started = performance.now()
  const isOver = pauseDeadline({ expectedMs: save.pauseExpectedMs, limitMs: save.pauseLimitMs })
  let paused = true
  const look = (): void => {
    const bytes = sink.bytes()
    onProgress?.(bytes)
    const sinceMs = performance.now() - started
    if (isOver(sinceMs, bytes)) stop.reject(tooLong(sinceMs, paused))
  }
  const looking = setInterval(look, PROGRESS_MS)
  const limit = setTimeout(() => stop.reject(tooLong(save.pauseLimitMs, paused)), save.pauseLimitMs)
  try {
    const stateSaved = save.live ? untilStateSaved(monitor, end.promise) : undefined
    // A caller that stops waiting early reports its own error.
    stateSaved?.catch(() => {})
    // In a live save the guest need not stand still until the copying process has started.
    if (stateSaved === undefined) sink.copy()
    await Promise.race([monitor.execute("migrate", { uri: sink.uri }), stop.promise])
    if (stateSaved !== undefined) {
      await Promise.race([stateSaved, stop.promise])
      await Promise.race([continueDuringSave(monitor, () => sink.copy()), stop.promise])
      paused = false
      await onLiveResume()
    }
    await Promise.race([end.promise, stop.promise])
  } finally {
    clearInterval(looking)
    clearTimeout(limit)
    signal.removeEventListener("abort", onAbort)
    end.stop()
  }
}

function tooLong(ms: number, paused: boolean): StillframeError {
  const what = paused
    ? "the VM was paused for %d ms and then resumed"
    : "the memory was not saved in %d ms, while the VM ran"
  const why = `${what.replace("%d", String(Math.round(ms)))}; use faster storage or raise PAUSE_LIMIT`
  return new StillframeError("pause_limit_exceeded", why)
}

/**
 * Neither a lost connection nor a lost answer is proof of a dead VM, so a second one is tried before the VM
 * is given up.
 */
async function resume(monitor: Monitor, { target, live, sink }: Save): Promise<void> {
  const impatience = live ? setTimeout(() => sink.abandon(), MONITOR_PATIENCE_MS) : undefined
  try {
    await ensureRunning(monitor)
  } catch (error) {
    if (!isGone(error) && !isTimeout(error)) throw error
    // QEMU greets the next one when it is rid of this one.
    monitor.close()
    const second = await reopenMonitor(target)
    await ensureRunning(second).finally(() => second.close())
  } finally {
    clearTimeout(impatience)
  }
}

/** A process that is just ending takes connections and drops them, which proves nothing yet. */
async function reopenMonitor(target: CaptureTarget): Promise<Monitor> {
  for (const end = performance.now() + REOPEN_MS; ; await delay(REOPEN_RETRY_MS)) {
    try {
      return await target.openMonitor()
    } catch (error) {
      if (!isUnheard(error) || performance.now() > end) throw error
    }
  }
}

const isUnheard = (error: unknown): boolean =>
  error instanceof StillframeError &&
  (error.code === "hypervisor_unavailable" || error.code === "hypervisor_silent")

/** A monitor that broke a bound may hear the next connection, and the VM must not stay paused. */
const isGone = (error: unknown): boolean =>
  error instanceof StillframeError &&
  (error.code === "hypervisor_gone" || error.code === "hypervisor_untrusted")

const isTimeout = (error: unknown): boolean => error instanceof StillframeError && error.code === "timeout"
