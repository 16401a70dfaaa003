import { stat } from "node:fs/promises"

/** False only where the system says that there is nothing: what can't be looked at may still hold a VM's data. */
export async function fileExists(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false
    throw error
  }
}
