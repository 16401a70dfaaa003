/** A file that a VMM wrote, by its name in the directory it was given. */
export interface SavedFile {
  readonly name: string
  /** `memory`: the guest's memory as raw bytes. `state`: devices, or all in one where only the VMM can tell them apart. */
  readonly role: "memory" | "state"
  /** Absolute: where it lies for now, because its VMM could not be kept waiting for its place, or could not reach it. `bringIn` brings it there. */
  readonly staged?: string
}
