import { StillframeError, toStillframeError } from "@stillframe/domain/errors"
import type { DiskFreeze } from "../disk-freeze.ts"
import type { Disk } from "../disks.ts"
import { flushFiles } from "../flush-files.ts"
import { assertUndisturbed } from "./assert-undisturbed.ts"
import { qemuFiles } from "./command.ts"
import { setUpLiveSave } from "./live-save.ts"
import { openMemorySink, type MemorySink } from "./memory-sink.ts"
import { assertWholeStream } from "./memory-stream.ts"
import { cancelMerges } from "./merge-job.ts"
import { setUpMigration } from "./migration.ts"
import { pauseAndSave } from "./pause-and-save.ts"
import { openMonitor, type Monitor } from "./qmp.ts"
import { stageOverlays } from "./stage-overlays.ts"

export interface CaptureOptions extends SaveOptions {
  /** The VM's directory of this generation, which is QEMU's working directory. */
  dir: string
  qemuImg: string
  /** `live`: the VM is paused for the state of its devices only, and its memory is saved while it runs. Default `paused`. */
  mode?: "paused" | "live"
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
  /**
   * Leaves the VM paused after a save that succeeded, for whoever ends it then: never a live one. After a failure it runs again all the
   * same.
   */
  keepPaused?: boolean
  /** Bytes of memory in the file so far, every 200 ms during the save. */
  onProgress?: (bytes: number) => void
  /** The save, also a live one, is given up when it has neither ended by then nor grown lately … */
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
  /** Whether its memory may be saved while it runs. */
  live?: boolean
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

/**
 * Saves the memory of a VM of ours and freezes its disks in one short pause. After a failure the VM may run on one overlay more than
 * before. Throws as `captureVm` does, and `not_supported` for a live capture by a QEMU or on a kernel that can't.
 */
export async function captureQemu(options: CaptureOptions): Promise<Capture> {
  const { dir, memoryFile } = options
  return await captureVm(
    {
      openMonitor: async () => await openMonitor(dir, qemuFiles.command),
      freezeDisks: async (monitor) => await stageOverlays(monitor, options),
      openSink: async () => await openMemorySink({ dir, memoryFile }),
      live: options.mode === "live",
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
    if (target.live === true) await setUpLiveSave(monitor)
    // Memory that stands still anyway is saved faster without being guarded.
    const live = target.live === true && wasRunning && options.keepPaused !== true
    if (!live) await setUpMigration(monitor)
    freeze = await target.freezeDisks(monitor)
    sink = await target.openSink()
    await flushFiles(freeze.active)
    options.signal.throwIfAborted()
    await options.beforePause({ wasRunning })
    const pause = await pauseAndSave(monitor, { ...options, target, live, wasRunning, freeze, sink })
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

const cancelled = (cause: unknown): StillframeError =>
  new StillframeError("cancelled", "the capture was cancelled; the VM was left as it was", { cause })
