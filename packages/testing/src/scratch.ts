import { mkdtemp, statfs } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

const memory = "/dev/shm"
const neededBytes = 4 * 1024 ** 3

/**
 * A new folder for the data of a service that the tests start: in memory where there is room, since most of
 * what a test's database costs is the making and removing of its files.
 */
export async function scratchFolder(prefix: string): Promise<string> {
  return mkdtemp(join((await hasRoom()) ? memory : tmpdir(), prefix))
}

async function hasRoom(): Promise<boolean> {
  try {
    const { bavail, bsize } = await statfs(memory)
    return bavail * bsize >= neededBytes
  } catch {
    // Not every system has it.
    return false
  }
}
