import type { Hypervisor } from "./instance.ts"

/** The abilities of one hypervisor on a host. Callers see them, and requests are checked against them. */
export interface Capabilities {
  /** Exact: of the binary, or of the system that is one. */
  readonly version: string
  readonly kinds: readonly ("Standby" | "Stopped")[]
  /**
   * How the disks of a running VM are kept: by layers of our own, by sharing blocks inside the pause, or not
   * at all.
   */
  readonly disk_freeze: "layers" | "reflink" | "none"
  readonly attach: boolean
  readonly fork: boolean
  /** True if a restored VM's disks may have other names than the captured ones. */
  readonly disk_override: boolean
  /** False if the memory is no file that compresses; its snapshots then stay uncompressed. */
  readonly compressible_memory: boolean
  readonly compressible_memory_reason?: string
  /** Which versions may load a snapshot: the very same, or that of the same machine type. */
  readonly restores: "same_version" | "same_machine"
  /**
   * False if a running save cannot be cancelled; a save that would take too long is then refused beforehand.
   */
  readonly cancel: boolean
  /** True if memory can be saved while the guest runs. */
  readonly live_capture: boolean
  readonly live_capture_reason?: string
}

/** By hypervisor, of those that a host has. */
export type HostCapabilities = Readonly<Partial<Record<Hypervisor, Capabilities>>>
