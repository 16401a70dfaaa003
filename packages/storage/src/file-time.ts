import { mkdtemp, rmdir, stat } from "node:fs/promises"
import { join } from "node:path"

/**
 * The present time by the clock that the file system of `dir` gives its files, in milliseconds since 1970.
 * Throws the system's error where nothing can be written.
 */
export async function fileTimeMs(dir: string): Promise<number> {
  const probe = await mkdtemp(join(dir, "time-"))
  try {
    return (await stat(probe)).mtimeMs
  } finally {
    await rmdir(probe)
  }
}
