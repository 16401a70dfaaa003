import type { SavedFile } from "./saved-files.ts"

/** As far as a capture needs to know it. `other`: it has not been started, or has been shut down. */
export type VmState = "running" | "paused" | "other"

/**
 * One VM of ours, in the words that every VMM has for it. Each call opens a connection of its own and has a
 * deadline that grows with the VM's memory. Throws `timeout` when no answer came, after which nothing is
 * known but by asking for the state; `hypervisor_gone` when the process or its socket is gone;
 * `hypervisor_failed` with what the VMM said.
 */
export interface VmControl {
  state(): Promise<VmState>
  /** A VM that is paused already is success. */
  pause(): Promise<void>
  /** A VM that runs already is success. */
  resume(): Promise<void>
  /**
   * Writes a paused VM's memory and device state into `dir`, which is absolute, empty, on no other VM's mind,
   * and one that the VM's process can write to. It stays paused, also after a failure, which leaves nothing
   * of the save. `onProgress` gets the bytes of memory that the file has so far, where it can be known.
   */
  save(dir: string, options: SaveOptions): Promise<SavedFile[]>
  /**
   * Makes sure that what `save` wrote into `dir` is whole: a full disk may have cut it short without a word.
   * It reads files, so no guest should have to wait for it. Throws `hypervisor_failed` naming the file.
   */
  assertWhole(dir: string): Promise<void>
}

export interface SaveOptions {
  readonly signal: AbortSignal
  readonly onProgress?: (bytes: number) => void
}
