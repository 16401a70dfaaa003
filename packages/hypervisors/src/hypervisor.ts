import type { Hypervisor as HypervisorName } from "@stillframe/domain/instance"
import type { Capture, CaptureRequest } from "./capture.ts"
import type { Disk } from "./disks/disks.ts"
import type { ImageStore } from "./disks/image-store.ts"
import type { PreparePlace } from "./disks/launch-files.ts"
import type { GuestConfig } from "./launch-config.ts"
import type { ProcessIdentity } from "./process/processes.ts"
import type { VmUser, VmUsers } from "./process/vm-users.ts"
import type { Watch } from "./watch.ts"

/** A hypervisor of a host. Plain data, because it travels with every order. */
export interface HypervisorTools {
  readonly name: HypervisorName
  /** Absolute. */
  readonly binary: string
  /** Absolute; makes the layers of QEMU's disks. */
  readonly qemuImg: string
  /** The only version whose saves it loads: its own. Absent where the machine type decides. */
  readonly loadsOnly?: string
  /** Why its saves hold no memory file that could be compressed. Absent where they do. */
  readonly opaqueMemory?: string
  /** The users that its VMs run as where this process is root. */
  readonly vmUsers?: VmUsers | undefined
  /** The one of them that is this VM's, in the captor that starts it. */
  readonly runAs?: VmUser | undefined
  /**
   * Absolute; on a tmpfs. Where saves are written before they are brought into their payloads; QEMU's need no
   * such place.
   */
  readonly staging?: string | undefined
}

export interface VmLaunch {
  /** The VM's directory of this generation, which becomes its process's working directory. */
  readonly dir: string
  readonly config: GuestConfig
  /** As `prepare`, `renew` or `top` left them in `dir`. */
  readonly disks: readonly Disk[]
  /** `stillframe-<cluster id>-<instance id>`: how the host finds the process again. */
  readonly identity: string
  readonly signal: AbortSignal
}

/** The saved memory, in its present form. */
export interface CapturedMemory {
  /** In order. */
  stream(): AsyncIterable<Uint8Array>
  /**
   * Makes it a file, which must not exist. Nobody changes it as long as it is there; it may be one that the
   * payload has too.
   */
  place(path: string): Promise<void>
  /** The directory and names of its other files. */
  readonly state: { readonly dir: string; readonly names: readonly string[] }
}

/** Two directories, and the images that the second can link to. */
export interface KeepPlace {
  readonly config: GuestConfig
  readonly from: string
  readonly dir: string
  readonly store: ImageStore
  readonly signal: AbortSignal
}

/** The part of a payload beside the memory. */
export interface Kept {
  /** As they lie in the payload, with images of ours in the place of callers' files. */
  readonly disks: readonly Disk[]
  readonly files: readonly KeptFile[]
}

/**
 * A file of a payload. `base`: an image of ours, whose SHA-256 its layer names; `boot`: kernel and initial
 * RAM disk.
 */
export interface KeptFile {
  readonly name: string
  readonly role: "disk" | "base" | "boot"
}

/**
 * Handles a VM of ours, for any hypervisor. It holds no connection and no state: whatever it is asked,
 * it looks. What is refused because a hypervisor can't do it is `not_supported`, with the reason.
 */
export interface Hypervisor {
  /** True if a running save can be cancelled. Otherwise a cancelled capture ends when its save does. */
  readonly canCancel: boolean
  find(identity: string): Promise<ProcessIdentity | undefined>

  /**
   * Checks all that a launch names, and lays out the directory of a new VM. Throws `invalid_request`, before
   * anything is made.
   */
  prepare(config: GuestConfig, place: PreparePlace): Promise<Disk[]>
  /** The disks of a VM that is to boot again in its own directory. */
  renew(dir: string, signal: AbortSignal): Promise<Disk[]>
  /**
   * Bytes that `bring` may have to write into a directory like `to`, because another hypervisor's disks are
   * not as this one's are, or because the file systems share no blocks.
   */
  roomToBring(frozen: readonly Disk[], place: { from: string; to: string }): Promise<number>
  /**
   * Brings what a payload holds beside the memory into another directory. Resolves with the disks as they lie
   * there: those of another hypervisor in a form that this one has.
   */
  bring(frozen: readonly Disk[], place: KeepPlace): Promise<readonly Disk[]>
  /** The layers that a VM may write, on top of the imported ones. */
  top(frozen: readonly Disk[], place: { dir: string; signal: AbortSignal }): Promise<Disk[]>

  /** The disks of a VM that does not run. */
  disksAtRest(dir: string): Promise<Disk[]>
  /**
   * Brings what a restore needs beside the memory into a payload's directory, where a capture may have left
   * some of it, so that nobody changes it any more. Nothing is synced but images. Throws `conflict` for a
   * caller's file that was changed since.
   */
  keep(frozen: readonly Disk[], place: KeepPlace): Promise<Kept>

  /** Starts a process whose guest does not run yet. On a failure none is left. */
  launch(vm: VmLaunch): Promise<ProcessIdentity>
  /** Starts a process and loads a captured memory; its guest does not run yet. On a failure none is left. */
  restore(vm: VmLaunch & { readonly memory: CapturedMemory }): Promise<ProcessIdentity>
  /**
   * Saves a VM's memory and freezes its disks into the payload's directory `into.dir`, the memory as
   * `into.memoryName`. The VM runs again afterwards whatever happens, if it ran before; on a failure nothing
   * of the capture is left.
   *
   * Throws `conflict` (a block job or another save is under way), `invalid_state`, `insufficient_storage`,
   * `storage_failed`, `cancelled`, `pause_limit_exceeded`, `corrupted`, `hypervisor_failed`,
   * `hypervisor_gone`, `not_supported`.
   */
  capture(
    vm: { dir: string; config: GuestConfig },
    into: { dir: string; memoryName: string },
    request: CaptureRequest,
  ): Promise<Capture>
  /** Lets a guest boot or go on, and reads back that it runs. */
  begin(dir: string): Promise<void>
  /**
   * Leaves a VM as a capture found it that died, failed or hung: what it began is called off or waited for,
   * and what it left outside of its payload, the directory of that name, is removed. `onPresent` is called
   * once the VM is known to be there, before its guest goes on. Throws `hypervisor_gone` when its process has
   * ended.
   */
  settle(
    dir: string,
    found: { wasRunning: boolean; payload?: string; onPresent?: () => Promise<void> },
  ): Promise<void>
  /** Watches a VM's process until it ends. One at a time. Throws `hypervisor_gone` when it has. */
  watch(dir: string): Promise<Watch>
  /**
   * Asks the guest to end, after `guestMs` ends the process, and after `processMs` more kills it. Resolves
   * when it is gone.
   */
  stop(
    dir: string,
    vm: ProcessIdentity,
    grace: { guestMs: number; processMs: number; signal: AbortSignal },
  ): Promise<void>
}
