import type { Hypervisor } from "@stillframe/hypervisors/hypervisor"
import type { GuestConfig } from "@stillframe/hypervisors/launch-config"
import type { Ground } from "../test-vm.ts"

/** What a captor asks of a VM, by what it does. */
export type Step = "pause" | "save" | "resume"

/** How requests look on the way to a VM. */
export interface Wire {
  /** The socket's name in the VM's directory. */
  readonly socket: string
  readonly steps: Readonly<Record<Step, RegExp>>
  /** The answer that refuses a request, saying "not now". */
  refusal(request: string): string
}

/** A way in which the disk is full. */
export interface FullDisk {
  /** The file that finds no room. */
  readonly file: string
  /** Of the capture's error. */
  readonly code: string
  readonly words: RegExp
  /** Takes the room away, until it is disposed of. */
  readonly takeRoom: (vm: { readonly dir: string; readonly payload: string }) => Promise<AsyncDisposable>
}

/** A hypervisor under test, real or a stand-in: what differs between them for a test. */
export interface Subject {
  /** Such as `firecracker 1.16.1 (stand-in)`. */
  readonly title: string
  /** Its heartbeat guest, without disks. */
  readonly guest: GuestConfig
  /** Its guest runs before it is let. */
  readonly bootsAtLaunch?: true
  readonly wire: Wire
  readonly fullDisks: readonly FullDisk[]
  /** `answerMs`: how long any answer is waited for, where the usual time is more than a test has. */
  hypervisor(place: Ground, options?: { readonly answerMs?: number }): Promise<Hypervisor>
  /** What somebody else could do to a VM, and see. */
  pause(dir: string): Promise<void>
  isRunning(dir: string): Promise<boolean>
}
