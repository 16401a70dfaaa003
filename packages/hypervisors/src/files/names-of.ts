import { readdir } from "node:fs/promises"

/** What a directory holds; nothing where there is none. */
export async function namesOf(dir: string): Promise<string[]> {
  return readdir(dir).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return []
    throw error
  })
}
