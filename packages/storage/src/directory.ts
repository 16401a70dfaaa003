import { mkdir, readdir } from "node:fs/promises"
import { dirname } from "node:path"
import { exists } from "./exists.ts"

/** What a directory holds; nothing when there is none. */
export async function namesIn(dir: string): Promise<string[]> {
  return readdir(dir).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return []
    throw error
  })
}

/** Makes a directory that only we may enter, and those above it that are missing. Node's own way of that never ends below `/proc`. */
export async function makeDirectory(dir: string): Promise<void> {
  try {
    await mkdir(dir, { mode: 0o700 })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === "EEXIST") return
    if (code !== "ENOENT" || (await exists(dirname(dir)))) throw error
    await makeDirectory(dirname(dir))
    await makeDirectory(dir)
  }
}
