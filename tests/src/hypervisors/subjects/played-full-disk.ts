import { rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import type { FullDisk } from "./subject.ts"

/** A full disk that a stand-in plays, told by its `fault.json`. */
export function playedFullDisk(
  file: string,
  fault: object,
  error: { readonly code: string; readonly words: RegExp },
): FullDisk {
  return {
    file,
    ...error,
    async takeRoom({ dir }) {
      const path = join(dir, "fault.json")
      await writeFile(path, JSON.stringify(fault))
      return { [Symbol.asyncDispose]: async () => await rm(path) }
    },
  }
}
