import { mkdir, readdir, rmdir } from "node:fs/promises"
import { dirname } from "node:path"
import { exists } from "./exists.ts"

/** The names in a directory; empty where it does not exist. */
export async function namesIn(dir: string): Promise<string[]> {
  return readdir(dir).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return []
    throw error
  })
}

/** Removes a directory that holds nothing; one that holds something, or is gone, stays as it is. */
export async function removeEmpty(dir: string): Promise<void> {
  await rmdir(dir).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT" && error.code !== "ENOTEMPTY" && error.code !== "EEXIST") throw error
  })
}

/**
 * Makes a directory that only we may enter unless `mode` says otherwise, and those above it that are missing.
 * Node's own way of that never ends below `/proc`, and says on a read-only file system that something is
 * missing.
 */
export async function makeDirectory(dir: string, mode = 0o700): Promise<void> {
  if ((await refusalToMake(dir, mode)) === undefined) return
  if (!(await exists(dirname(dir)))) await makeDirectory(dirname(dir), mode)
  // Again where the one above was there: another process may have made it just then.
  const refusal = await refusalToMake(dir, mode)
  if (refusal !== undefined) throw refusal
}

/** Undefined once the directory is there, else that something is missing above it. */
async function refusalToMake(dir: string, mode: number): Promise<NodeJS.ErrnoException | undefined> {
  try {
    await mkdir(dir, { mode })
  } catch (error) {
    const refusal = error as NodeJS.ErrnoException
    if (refusal.code === "ENOENT") return refusal
    if (refusal.code !== "EEXIST") throw refusal
  }
  return undefined
}
