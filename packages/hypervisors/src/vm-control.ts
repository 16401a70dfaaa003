import type { SavedFile } from "./saved-files.ts"

/** As far as a capture needs to know it. `other`: it has not been started, or has been shut down. */
export type VmState = "running" | "paused" | "other"

/**
 * One VM of ours, in the words that every VMM has for it. Each call opens a connection of its own and has a deadline that
 * grows with the VM's memory. Throws `timeout` when no answer came, after which nothing is known but by asking for the
 * state; `hypervisor_gone` when the process or its socket is gone; `hypervisor_failed` with what the VMM said.
 */
export interface VmControl {
  state(): Promise<VmState>
  /** A VM that is paused already is success. */
  pause(): Promise<void>
  /** A VM that runs already is success. */
  resume(): Promise<void>
  /**
   * Writes a paused VM's memory and device state into `dir`, which is absolute, empty and on no other VM's mind, and checks
   * that they are whole: a full disk may cut them short without a word. It stays paused, also after a failure.
   * `onProgress` gets the bytes of memory that the file has so far, where it can be known. What is `staged` is to be brought
   * in after the resume.
   */
  save(dir: string, options: SaveOptions): Promise<SavedFile[]>
}

export interface SaveOptions {
  readonly signal: AbortSignal
  readonly onProgress?: (bytes: number) => void
  /** `CAPTURE_STAGING`: a tmpfs for VMMs that sync what they write while the guest waits. One without room is passed over. */
  readonly staging?: string
}
