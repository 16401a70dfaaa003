/** How a VM's process ended, as far as it was said. */
export type VmEnd = "guest_shutdown" | "guest_reset" | "guest_panicked" | "ended_by_host" | "gone"

/** Holds a VM in view until it ends. */
export interface Watch {
  /** Resolves when the process has ended; `gone` when it did without a word (killed, crashed). Never after `close`. */
  readonly ended: Promise<VmEnd>
  close(): void
}
