/** How a VM's process ended, as far as it was said. */
export type VmEnd = "guest_shutdown" | "guest_reset" | "guest_panicked" | "ended_by_host" | "gone"

/** Why a VM stands still though no work of ours has paused it. */
export interface Standstill {
  /** The hypervisor's word for it, such as `io-error`. */
  readonly status: string
  /** For people: why, and what to do. */
  readonly reason: string
  /**
   * True when the VM can go on once the host takes its writes again; otherwise nothing of ours resumes it.
   */
  readonly endsWithWrites: boolean
}

/** Tells whether a VM stands still. */
export interface Standing {
  /**
   * Calls back when the VM may have stopped or gone on, until the returned function is called. Absent where
   * the hypervisor has no events: then the VM is looked at from time to time.
   */
  readonly onChange?: (listener: () => void) => () => void
  /**
   * Undefined while the VM runs. To be asked, like `resume`, only by the holder of the VM's lock while no
   * capture is under way. Throws `hypervisor_gone` when the process has ended.
   */
  look(): Promise<Standstill | undefined>
  /** Lets the VM go on, once. */
  resume(): Promise<void>
}

/** Holds a VM in view until it ends. */
export interface Watch extends Standing {
  /**
   * Resolves when the process has ended, or says so: one that its guest has taken over may only have closed
   * its socket. `gone`: it did without a word (killed, crashed). Never after `close`.
   */
  readonly ended: Promise<VmEnd>
  /**
   * After `ended`: why the hypervisor is not believed any more, for people. Undefined where it broke no rule.
   */
  readonly breach?: () => string | undefined
  close(): void
}
