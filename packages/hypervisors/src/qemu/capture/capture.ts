import { StillframeError, toStillframeError } from "@stillframe/domain/errors"
import type { Capture } from "../../capture.ts"
import type { DiskFreeze } from "../../disks/disk-freeze.ts"
import { flushFiles } from "../../files/flush-files.ts"
import { assertUndisturbed } from "../layers/assert-undisturbed.ts"
import { cancelMerges } from "../layers/merge-job.ts"
import { stageOverlays } from "../layers/stage-overlays.ts"
import { openMonitor, type Monitor } from "../monitor/qmp.ts"
import { qemuFiles } from "../process/command.ts"
import { setUpLiveSave } from "./live-save.ts"
import { openMemorySink, type MemorySink } from "./memory-sink.ts"
import { assertWholeStream } from "./memory-stream.ts"
import { setUpMigration } from "./migration.ts"
import { saveLive, savePaused, type SaveOptions } from "./save.ts"

export interface CaptureOptions extends SaveOptions {
  /** The VM's directory of this generation, which is QEMU's working directory. */
  dir: string
  qemuImg: string
  /** How long QEMU's answer to any command is waited for; for tests, which do not want to wait for it. */
  answerMs?: number | undefined
}

/** The differences between a VM of ours and one that someone else started. */
export interface CaptureTarget {
  openMonitor: () => Promise<Monitor>
  freezeDisks(monitor: Monitor): Promise<DiskFreeze>
  openSink(): Promise<MemorySink>
}

/** The result of a capture with the memory as its one file. */
export interface Captured extends Omit<Capture, "files"> {
  readonly memoryBytes: number
}

/**
 * Saves the memory of a VM of ours and freezes its disks in one short pause. After a failure the VM may run
 * on one overlay more than before. Throws as `captureVm` does, and `not_supported` for a live capture by a
 * QEMU or on a kernel that can't.
 */
export async function captureQemu(options: CaptureOptions): Promise<Captured> {
  const { dir, memoryFile } = options
  return await captureVm(
    {
      openMonitor: async () => await openMonitor(dir, qemuFiles.command, options),
      freezeDisks: async (monitor) => await stageOverlays(monitor, options),
      openSink: async () => await openMemorySink({ dir, memoryFile }),
    },
    options,
  )
}

/**
 * Saves a VM's memory and freezes its disks. The VM runs again afterwards whatever happens, if it ran before.
 * On a failure the memory file is removed.
 *
 * Throws `conflict` (a block job or another save is under way), `invalid_state`, `insufficient_storage`,
 * `storage_failed`, `cancelled`, `pause_limit_exceeded`, `corrupted`, `hypervisor_failed`, `hypervisor_gone`.
 */
export async function captureVm(target: CaptureTarget, options: SaveOptions): Promise<Captured> {
  const monitor = await target.openMonitor()
  let freeze: DiskFreeze | undefined
  let sink: MemorySink | undefined
  try {
    const wasRunning = await assertUndisturbed(monitor)
    // A save fails while a disk job is there, and a merge may take long; the next one does again what this
    // one loses.
    await cancelMerges(monitor)
    if (options.mode === "live") await setUpLiveSave(monitor)
    // Memory that stands still anyway is saved faster without being guarded.
    const live = options.mode === "live" && wasRunning && options.keepPaused !== true
    if (!live) await setUpMigration(monitor)
    freeze = await target.freezeDisks(monitor)
    sink = await target.openSink()
    await flushFiles(freeze.active)
    options.signal.throwIfAborted()
    await options.beforePause({ wasRunning })
    const save = { ...options, openMonitor: target.openMonitor, wasRunning, freeze, sink }
    const saved = await (live ? saveLive(monitor, save) : savePaused(monitor, save))
    const memoryBytes = await sink.finished()
    await assertWholeStream(options.memoryFile)
    const pauseMs = saved.pauseMs + (await freeze.finish())
    await sink.close()
    const { version: hypervisorVersion } = monitor
    return { ...saved, pauseMs, memoryBytes, wasRunning, hypervisorVersion, disks: freeze.frozen }
  } catch (reported) {
    // QEMU only knows that its pipe broke; the sink knows why.
    const error = (await sink?.failure()) ?? reported
    await sink?.discard()
    await freeze?.discard()
    throw options.signal.aborted && error === options.signal.reason
      ? cancelled(error)
      : toStillframeError(error)
  } finally {
    monitor.close()
  }
}

const cancelled = (cause: unknown): StillframeError =>
  new StillframeError("cancelled", "the capture was cancelled; the VM was left as it was", { cause })
