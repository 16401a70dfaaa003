import type { Capture } from "./capture.ts"
import type { HostPathRules } from "./disks/host-paths.ts"
import type { ProcessIdentity } from "./process/processes.ts"
import type { VmUsers } from "./process/vm-users.ts"
import type { AttachedCaptureOptions } from "./qemu/attached/capture.ts"
import type { MergeHooks } from "./qemu/attached/overlay/merge-overlays.ts"
import type { ParsedCommandLine } from "./qemu/attached/parse-command-line.ts"
import type { Standstill } from "./watch.ts"

export interface AttachOptions {
  /** As the caller gave it. */
  controlSocket: string
  /** Looked for when absent. */
  pid?: number
  /**
   * Absolute paths of the programs that may be attached to: compared by file, so a wrapper script does not
   * count.
   */
  binaries: readonly string[]
  /** Absolute: the QEMU that would start a restored VM, and so has to know its machine. */
  launcher?: string
  /** The users that our VMs run as, whose processes may be attached to beside root's and our own. */
  users?: Pick<VmUsers, "first" | "last">
  rules: HostPathRules
}

/**
 * A VM that someone else started, as it was found. All of it is to be stored but `standstill` and `blocked`.
 */
export interface AttachedVm {
  /** Real path. */
  controlSocket: string
  process: ProcessIdentity
  user: { uid: number; gid: number }
  hypervisorVersion: string
  memoryMib: number
  vcpus: number
  /** The most that copies of its writable disks can take. */
  diskBytesMax: number
  /** Why it stands still; undefined while it runs. */
  standstill: Standstill | undefined
  /** Why QEMU cannot save it, in QEMU's words. */
  blocked: readonly string[]
  /**
   * The launch form, or the first option that it cannot express: then the VM can be captured, but not
   * restored or forked.
   */
  launch: ParsedCommandLine
}

interface CommitTools {
  readonly qemuImg: string
  readonly signal: AbortSignal
}

/**
 * Handles VMs that someone else started, as `Hypervisor` does VMs of ours. `home` is an instance's directory,
 * which records overlays.
 */
export interface AttachedVms {
  /** Adopts a running QEMU, which it only looks at. Throws as `attachQemu` does. */
  readonly find: (options: AttachOptions) => Promise<AttachedVm>
  /** True when a capture left overlays that are not back in their owner's files. */
  readonly usesOverlays: (home: string) => Promise<boolean>
  /** Writes the overlays of a VM that has ended into its owner's files. Throws as `commitLeftover` does. */
  readonly commitOverlays: (home: string, tools: CommitTools) => Promise<unknown>
  readonly of: (vm: Pick<AttachedVm, "controlSocket" | "process">) => AttachedHypervisor
}

/** One VM that someone else started. */
export interface AttachedHypervisor {
  /** Why it stands still, by a connection that is closed at once. */
  look(): Promise<Standstill | undefined>
  /**
   * Saves its memory as `memoryName` and copies its disks, both into `dir`. Throws as `captureAttached` does.
   */
  capture(
    into: { dir: string; memoryName: string },
    options: Omit<AttachedCaptureOptions, "controlSocket" | "process" | "dir" | "memoryFile">,
  ): Promise<Capture>
  /**
   * As `Hypervisor.settle`. Overlays stay: to commit them takes as long as they are large, and other paused
   * VMs wait meanwhile.
   */
  settle(home: string, found: { wasRunning: boolean }): Promise<void>
  /** Leads the VM back to its owner's files, or commits its overlays when its process has ended. */
  release(home: string, options: MergeHooks & CommitTools): Promise<void>
}
