/** A file that a VMM wrote, by its name in the directory it was given. */
export interface SavedFile {
  readonly name: string
  /**
   * `memory`: the guest's memory as raw bytes. `state`: devices, or all in one where only the VMM can tell
   * them apart.
   */
  readonly role: "memory" | "state"
}
