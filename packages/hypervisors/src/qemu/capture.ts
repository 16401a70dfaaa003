import { open } from "node:fs/promises"
import { StillframeError, toStillframeError } from "@stillframe/domain/errors"
import type { DiskFreeze } from "../disk-freeze.ts"
import type { Disk } from "../disks.ts"
import { pauseDeadline } from "../pause-deadline.ts"
import { assertUndisturbed } from "./assert-undisturbed.ts"
import { qemuFiles } from "./command.ts"
import { openMemorySink, type MemorySink } from "./memory-sink.ts"
import { assertWholeStream } from "./memory-stream.ts"
import { cancelMerges } from "./merge-job.ts"
import { migrationEnd, setUpMigration } from "./migration.ts"
import { openMonitor, type Monitor } from "./qmp.ts"
import { endMigration, ensureRunning } from "./resume.ts"
import { stageOverlays } from "./stage-overlays.ts"

export interface CaptureOptions extends SaveOptions {
  /** The VM's directory of this generation, which is QEMU's working directory. */
  dir: string
  qemuImg: string
}

export interface SaveOptions {
  /** Absolute; must not exist. */
  memoryFile: string
  /** The last moment to refuse: throws to leave the VM untouched. Comes right before the pausing command. */
  beforePause: (vm: { wasRunning: boolean }) => void | Promise<void>
  onPaused?: () => void
  /**
   * The VM is as it was before the pause, after a failure as well, and what follows may take long. Not called where it was left paused or
   * could not be resumed.
   */
  afterResume?: () => void | Promise<void>
  /** Leaves the VM paused after a save that succeeded, for whoever ends it then. After a failure it runs again all the same. */
  keepPaused?: boolean
  /** Bytes of memory in the file so far, every 200 ms during the save. */
  onProgress?: (bytes: number) => void
  /** The save is given up when it has neither ended by then nor grown lately … */
  pauseExpectedMs: number
  /** … and in any case after this long. */
  pauseLimitMs: number
  signal: AbortSignal
}

/** What differs between a VM of ours and one that someone else started. */
export interface CaptureTarget {
  openMonitor(): Promise<Monitor>
  freezeDisks(monitor: Monitor): Promise<DiskFreeze>
  openSink(): Promise<MemorySink>
}

export interface Capture {
  /** From before the pausing command to the VM reading as running; for a VM that was paused already, the length of the save. */
  pauseMs: number
  /** The moment of the guest's state, by the host's clock. */
  capturedAt: Date
  memoryBytes: number
  wasRunning: boolean
  /** The chains as of that moment: immutable from now on. */
  disks: Disk[]
}

const PROGRESS_MS = 200

/**
 * Saves the memory of a VM of ours and freezes its disks in one short pause. After a failure the VM may run on one overlay more than
 * before. Throws as `captureVm` does.
 */
export async function captureQemu(options: CaptureOptions): Promise<Capture> {
  const { dir, memoryFile } = options
  return await captureVm(
    {
      openMonitor: async () => await openMonitor(dir, qemuFiles.command),
      freezeDisks: async (monitor) => await stageOverlays(monitor, options),
      openSink: async () => await openMemorySink({ dir, memoryFile }),
    },
    options,
  )
}

/**
 * Saves a VM's memory and freezes its disks. The VM runs again afterwards whatever happens, if it ran before. On a failure the memory
 * file is removed.
 *
 * Throws `conflict` (a block job or another save is under way), `invalid_state`, `insufficient_storage`, `storage_failed`, `cancelled`,
 * `pause_limit_exceeded`, `corrupted`, `hypervisor_failed`, `hypervisor_gone`.
 */
export async function captureVm(target: CaptureTarget, options: SaveOptions): Promise<Capture> {
  const monitor = await target.openMonitor()
  let freeze: DiskFreeze | undefined
  let sink: MemorySink | undefined
  try {
    const wasRunning = await assertUndisturbed(monitor)
    // A save fails while a disk job is there, and a merge may take long; the next one does again what this one loses.
    await cancelMerges(monitor)
    await setUpMigration(monitor)
    freeze = await target.freezeDisks(monitor)
    sink = await target.openSink()
    await flush(freeze.active)
    options.signal.throwIfAborted()
    await options.beforePause({ wasRunning })
    const pause = await pauseAndSave(monitor, { ...options, target, wasRunning, freeze, sink })
    const memoryBytes = await sink.finished()
    await assertWholeStream(options.memoryFile)
    const pauseMs = pause.pauseMs + (await freeze.finish())
    await sink.close()
    return { ...pause, pauseMs, memoryBytes, wasRunning, disks: freeze.frozen }
  } catch (error) {
    await sink?.discard()
    await freeze?.discard()
    throw options.signal.aborted && error === options.signal.reason
      ? cancelled(error)
      : toStillframeError(error)
  } finally {
    monitor.close()
  }
}

interface Save extends SaveOptions {
  target: CaptureTarget
  wasRunning: boolean
  freeze: DiskFreeze
  sink: MemorySink
}

async function pauseAndSave(monitor: Monitor, save: Save): Promise<{ pauseMs: number; capturedAt: Date }> {
  const { sink, wasRunning } = save
  const started = performance.now()
  let capturedAt = new Date()
  let failure: unknown
  let resumed = false
  try {
    if (wasRunning) await monitor.execute("stop")
    capturedAt = new Date()
    save.onPaused?.()
    await save.freeze.take()
    await saveMemory(monitor, save)
  } catch (error) {
    failure = error
  }
  if (failure === undefined && save.keepPaused === true)
    return { pauseMs: performance.now() - started, capturedAt }
  try {
    await (wasRunning ? resume(monitor, save.target) : endMigration(monitor))
    resumed = true
  } catch (error) {
    // A VM that stays paused is worse news than the failure that came before.
    if (failure === undefined || !isGone(error)) failure = error
  }
  const pauseMs = performance.now() - started
  if (resumed) await save.afterResume?.()
  if (failure === undefined) return { pauseMs, capturedAt }
  // QEMU only knows that its pipe broke; the sink knows why.
  throw (await sink.failure()) ?? failure
}

async function saveMemory(monitor: Monitor, save: Save): Promise<void> {
  const { sink, signal, onProgress } = save
  signal.throwIfAborted()
  const end = migrationEnd(monitor)
  const stop = Promise.withResolvers<never>()
  const onAbort = (): void => stop.reject(signal.reason)
  signal.addEventListener("abort", onAbort, { once: true })
  const started = performance.now()
  const isOver = pauseDeadline({ expectedMs: save.pauseExpectedMs, limitMs: save.pauseLimitMs })
  const look = (): void => {
    const bytes = sink.bytes()
    onProgress?.(bytes)
    const sinceMs = performance.now() - started
    if (isOver(sinceMs, bytes)) stop.reject(tooLong(sinceMs))
  }
  const looking = setInterval(look, PROGRESS_MS)
  const limit = setTimeout(() => stop.reject(tooLong(save.pauseLimitMs)), save.pauseLimitMs)
  try {
    await Promise.race([monitor.execute("migrate", { uri: sink.uri }), stop.promise])
    await Promise.race([end.promise, stop.promise])
  } finally {
    clearInterval(looking)
    clearTimeout(limit)
    signal.removeEventListener("abort", onAbort)
    end.stop()
  }
}

function tooLong(ms: number): StillframeError {
  const why = `the VM was paused for ${Math.round(ms)} ms and then resumed; use faster storage or raise PAUSE_LIMIT`
  return new StillframeError("pause_limit_exceeded", why)
}

/** A lost connection is no proof of a dead VM, so a second one is tried before the VM is given up. */
async function resume(monitor: Monitor, target: CaptureTarget): Promise<void> {
  try {
    await ensureRunning(monitor)
  } catch (error) {
    if (!isGone(error)) throw error
    const second = await target.openMonitor()
    await ensureRunning(second).finally(() => second.close())
  }
}

/** Writes what the host's cache holds of the disks, so that the flush inside `stop` finds little left. */
async function flush(paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    const file = await open(path, "r")
    try {
      await file.datasync()
    } finally {
      await file.close()
    }
  }
}

const isGone = (error: unknown): boolean =>
  error instanceof StillframeError && error.code === "hypervisor_gone"

const cancelled = (cause: unknown): StillframeError =>
  new StillframeError("cancelled", "the capture was cancelled; the VM was left as it was", { cause })
