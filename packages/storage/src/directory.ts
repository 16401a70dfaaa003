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

/**
 * Makes a directory that only we may enter unless `mode` says otherwise, and those above it that are missing. Node's own way of that
 * never ends below `/proc`, and says on a read-only file system that something is missing.
 */
export async function makeDirectory(dir: string, mode = 0o700): Promise<void> {
  try {
    await mkdir(dir, { mode })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === "EEXIST") return
    if (code !== "ENOENT" || (await exists(dirname(dir)))) throw error
    await makeDirectory(dirname(dir), mode)
    await makeDirectory(dir, mode)
  }
}
