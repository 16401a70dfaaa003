import { stat } from "node:fs/promises"
import { basename } from "node:path"
import { plainReason, reasonOf, unavailable } from "./unavailable.ts"

/** False only if the path does not exist. Throws `storage_unavailable` if it cannot be examined. */
export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false
    throw unavailable(
      `${basename(path)} cannot be looked at: ${plainReason(error)}`,
      "Mount the disk that holds it.",
      {
        cause: error,
        said: reasonOf(error),
      },
    )
  }
}
