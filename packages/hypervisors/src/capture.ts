import type { CaptureMode } from "@stillframe/domain/snapshot"
import type { Disk } from "./disks/disks.ts"
import type { SavedFile } from "./file-vmm/saved-files.ts"

/** The request of a capture, for every hypervisor. */
export interface CaptureRequest {
  /** The last moment to refuse: throws to leave the VM untouched. Comes right before the pausing command. */
  readonly beforePause: (vm: { wasRunning: boolean }) => void | Promise<void>
  /**
   * `live`: a VM that runs is paused for the state of its devices only, and its memory is saved while it
   * runs. Where that can't be, it is `not_supported`, never a paused capture instead. Default `paused`.
   */
  readonly mode?: CaptureMode | undefined
  readonly onPaused?: () => void
  /**
   * Leaves the VM paused after a save that succeeded, for whoever ends it then. After a failure it runs again
   * all the same.
   */
  readonly keepPaused?: boolean
  /** Bytes of memory saved so far. */
  readonly onProgress?: (bytes: number) => void
  /** The save is given up when it has neither ended by then nor grown lately … */
  readonly pauseExpectedMs: number
  /** … and in any case after this long. */
  readonly pauseLimitMs: number
  readonly signal: AbortSignal
}

/** The result of a capture. */
export interface Capture {
  /**
   * From before the pausing command to the VM reading as running; for a VM that was paused already, the
   * length of the save.
   */
  readonly pauseMs: number
  /** The moment of the guest's state, by `monotonicMs`. */
  readonly capturedAtMs: number
  readonly wasRunning: boolean
  /**
   * Exact, of the process that ran the VM: its binary may have been replaced since it started. Absent where
   * that is no program but the host's system.
   */
  readonly hypervisorVersion?: string
  /** In the directory that was asked for. */
  readonly files: readonly SavedFile[]
  /** The chains as of that moment: immutable from now on. */
  readonly disks: readonly Disk[]
}
