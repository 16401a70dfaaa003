import type { Hypervisor } from "./instance.ts"

/** What a host can do with one hypervisor, as data: what callers are shown, and what requests are checked against. */
export interface Capabilities {
  /** Exact: of the binary, or of the system that is one. */
  readonly version: string
  readonly kinds: readonly ("Standby" | "Stopped")[]
  /** How the disks of a running VM are kept: by layers of our own, by sharing blocks inside the pause, or not at all. */
  readonly disk_freeze: "layers" | "reflink" | "none"
  readonly attach: boolean
  readonly fork: boolean
  /** Whether a restored VM's disks may have other names than the captured one's. */
  readonly disk_override: boolean
  /** Whether the memory is a file that compresses, and why not: then its snapshots stay as they are. */
  readonly compressible_memory: boolean
  readonly compressible_memory_reason?: string
  /** Which versions may load a snapshot: the very same, or that of the same machine type. */
  readonly restores: "same_version" | "same_machine"
  /** Whether a save that is under way can be called off. Where not, one that would take too long is refused beforehand. */
  readonly cancel: boolean
  /** Whether memory can be saved while the guest runs, and why not. */
  readonly live_capture: boolean
  readonly live_capture_reason?: string
}

/** By hypervisor, of those that a host has. */
export type HostCapabilities = Readonly<Partial<Record<Hypervisor, Capabilities>>>
