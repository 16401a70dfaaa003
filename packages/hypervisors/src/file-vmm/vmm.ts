import type { Capabilities } from "@stillframe/domain/capabilities"
import type { Disk } from "../disks/disks.ts"
import type { GuestConfig } from "../launch-config.ts"
import type { ProcessIdentity } from "../process/processes.ts"
import type { VmUser } from "../process/vm-users.ts"
import type { VmControl } from "./vm-control.ts"

export interface VmmLaunch {
  /**
   * The VM's directory of this generation, with its kernel, initrd and disks in it; becomes the working
   * directory.
   */
  readonly dir: string
  /** Absolute. */
  readonly binary: string
  readonly config: GuestConfig
  /** Each a single raw file, named relative to `dir`. */
  readonly disks: readonly Disk[]
  /** `stillframe-<cluster id>-<instance id>`: how the host finds the process again. */
  readonly identity: string
  /** The unprivileged user it runs as where this process is root. */
  readonly runAs?: VmUser
  /** The only version that may load what was saved; absent where any may. */
  readonly loadsOnly?: string
  readonly signal: AbortSignal
}

/**
 * A hypervisor whose processes hold one VM each and serve an API on a socket in its directory, and which
 * saves and loads whole files while the VM is paused. It holds no connection: whatever it is asked, it looks.
 */
export interface Vmm {
  /** The name of the guest's memory in its saves; absent if that is not a file of its own. */
  readonly memoryName?: string
  /** True if a restored VM maps the saved file for as long as it lives. */
  readonly mapsSaved?: boolean
  /**
   * Asks this binary, run as `runAs`, what it is and can do. Throws `hypervisor_unavailable` with the remedy.
   */
  probe(binary: string, signal: AbortSignal, runAs?: VmUser): Promise<Capabilities>
  /** Starts a process and configures the VM; its guest does not run yet. On a failure no process is left. */
  launch(options: VmmLaunch): Promise<ProcessIdentity>
  /** Lets a launched guest boot, or a restored one go on, and reads back that it runs. */
  begin(dir: string, config: GuestConfig): Promise<void>
  control(dir: string, config: GuestConfig): VmControl
  /**
   * The exact version of the process that runs the VM. Absent where the host's system does. Throws as
   * `VmControl` does.
   */
  runningVersion?(dir: string, config: GuestConfig): Promise<string>
  /**
   * Starts a process and loads what `save` wrote, which lies under the same names in `saved`, a directory in
   * `dir`. The VM is left paused, its state read back, on `disks`. On a failure no process is left. What
   * `saved` holds stays as it is until then, and for as long as the VM lives where `mapsSaved`.
   */
  restore(options: VmmLaunch & { readonly saved: string }): Promise<ProcessIdentity>
  /**
   * Asks the guest to end, after `guestMs` ends the process, and after `processMs` more kills it. Resolves
   * when it is gone.
   */
  stop(
    dir: string,
    vm: ProcessIdentity,
    options: { guestMs: number; processMs: number; signal: AbortSignal },
  ): Promise<void>
}
