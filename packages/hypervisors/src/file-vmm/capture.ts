import { open, rm } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError, toStillframeError } from "@stillframe/domain/errors"
import { monotonicMs } from "@stillframe/domain/postgres/database-clock"
import type { Capture, CaptureRequest } from "../capture.ts"
import type { DiskFreeze } from "../disks/disk-freeze.ts"
import { flushFiles } from "../files/flush-files.ts"
import { ensureRuns, orResume } from "../process/ensure-runs.ts"
import type { SavedFile } from "./saved-files.ts"
import type { VmControl } from "./vm-control.ts"

export interface VmmCapture extends CaptureRequest {
  readonly control: VmControl
  readonly freeze: DiskFreeze
  /**
   * Absolute; nothing in it has a name that the VMM gives its files, and the VM's process can write to it.
   */
  readonly dir: string
  /** Brings what was saved to its place and makes sure there that it is whole, once the guest runs again. */
  readonly keep: (files: readonly SavedFile[]) => Promise<void>
  /** Bytes; what the VMM will write, more or less. */
  readonly memoryBytes: number
}

const trialBytes = 32 * 1024 ** 2
const trialName = "write-rate"

/**
 * Saves a VM's memory and freezes its disks while it is paused. It runs again afterwards whatever happens, if
 * it ran before; on a failure nothing of the capture is left. These VMMs can't call a save off, so one that
 * would take longer than the pause may last is refused before there is a pause, and one that is cancelled is
 * waited for.
 *
 * Throws `invalid_state`, `hypervisor_silent`, `pause_limit_exceeded`, `cancelled`, and what the VM's
 * control, its disks and `beforePause` throw.
 */
export async function captureVmm(request: VmmCapture): Promise<Capture> {
  const { control, freeze, dir, keep, keepPaused = false, signal, beforePause } = request
  try {
    const state = await unlessSilent(() => control.state())
    if (state === "other")
      throw new StillframeError("invalid_state", "the VM neither runs nor is paused; start the instance")
    await assertInTime(request)
    await flushFiles(freeze.active)
    signal.throwIfAborted()
    const wasRunning = state === "running"
    await beforePause({ wasRunning })
    const resume = async (): Promise<void> => {
      if (wasRunning) await ensureRuns(control)
    }
    const startedAt = performance.now()
    const saved = await orResume(() => save(request, wasRunning), resume)
    try {
      if (!keepPaused) await resume()
      const pauseMs = performance.now() - startedAt
      // All that reads or moves what was saved: the guest runs meanwhile, unless the VM is to end.
      const finish = async (): Promise<number> => {
        await keep(saved.files)
        return await freeze.finish()
      }
      const againMs = await (keepPaused ? orResume(finish, resume) : finish())
      return { ...saved, pauseMs: pauseMs + againMs, wasRunning, disks: freeze.frozen }
    } catch (error) {
      await remove(dir, saved.files)
      throw error
    }
  } catch (error) {
    await freeze.discard()
    throw signal.aborted && error === signal.reason ? cancelled(error) : toStillframeError(error)
  }
}

/**
 * For the first questions of a capture: no save is under way that they could wait behind, so a VMM that gives
 * no answer hangs.
 */
export async function unlessSilent<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask()
  } catch (error) {
    if (!(error instanceof StillframeError) || error.code !== "timeout") throw error
    throw new StillframeError(
      "hypervisor_silent",
      "the VM's process does not answer: it is stopped or hangs. Continue it or stop the instance, then try again",
      { cause: error },
    )
  }
}

interface Saved {
  readonly capturedAtMs: number
  readonly files: readonly SavedFile[]
}

async function save(request: VmmCapture, wasRunning: boolean): Promise<Saved> {
  const { control, freeze, dir, signal, onProgress, onPaused } = request
  if (wasRunning) await control.pause()
  const capturedAtMs = monotonicMs()
  onPaused?.()
  await freeze.take()
  signal.throwIfAborted()
  const files = await control.save(dir, { signal, ...(onProgress !== undefined && { onProgress }) })
  if (!signal.aborted) return { capturedAtMs, files }
  await remove(dir, files)
  throw signal.reason
}

async function remove(dir: string, files: readonly SavedFile[]): Promise<void> {
  for (const { name } of files) await rm(join(dir, name), { force: true })
}

/** How long 32 MiB take to the device says how long all of it will. */
async function assertInTime({ dir, memoryBytes, pauseLimitMs }: VmmCapture): Promise<void> {
  const path = join(dir, trialName)
  const bytes = Math.min(trialBytes, memoryBytes)
  const startedAt = performance.now()
  const file = await open(path, "wx", 0o600)
  try {
    await file.writeFile(Buffer.alloc(bytes, 0x5a))
    await file.datasync()
  } finally {
    await file.close()
    await rm(path)
  }
  const expectedMs = ((performance.now() - startedAt) * memoryBytes) / bytes
  if (expectedMs > pauseLimitMs)
    throw new StillframeError(
      "pause_limit_exceeded",
      `the VM would be paused for about ${Math.round(expectedMs / 1_000)} s, and can't be resumed before its memory is written; use faster storage or raise PAUSE_LIMIT`,
    )
}

function cancelled(cause: unknown): StillframeError {
  return new StillframeError("cancelled", "the capture was cancelled; the VM was left as it was", { cause })
}
