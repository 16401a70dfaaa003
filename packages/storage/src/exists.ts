import { stat } from "node:fs/promises"
import { reasonOf, unavailable } from "./unavailable.ts"

/** False only for what is not there. Throws `storage_unavailable` for what can't be looked at. */
export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false
    throw unavailable(
      `${path} can't be looked at: ${reasonOf(error)}`,
      "Mount the disk that holds it.",
      error,
    )
  }
}
