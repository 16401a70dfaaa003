import { readdir } from "node:fs/promises"

/** The names in a directory; empty if it does not exist. */
export async function namesOf(dir: string): Promise<string[]> {
  return readdir(dir).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return []
    throw error
  })
}
