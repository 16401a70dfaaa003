import { constants } from "node:fs"
import { open, readdir, rename, rm, type FileHandle } from "node:fs/promises"
import { join } from "node:path"

/** A log that has grown beyond this begins anew, and its newest bytes are kept beside it under `olderLog`. */
export const logBytesMax = 1024 ** 2

const logName = /\.(log|err)$/

/** Holds the newest bytes before a cut, or the log of the last run. */
const olderLog = (path: string): string => `${path}.1`

/** Sets the log of the last run aside, for a program that appends to the one of its own run. */
export async function beginLog(path: string): Promise<void> {
  await rename(path, olderLog(path)).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw error
  })
}

/**
 * Bounds every log in a VM's directory, whose user may have given their names to anything. A program that is
 * just writing goes on in the same file; what it writes between our last read and the cut, some bytes at
 * most, is lost.
 */
export async function boundLogs(dir: string, bytesMax = logBytesMax): Promise<void> {
  const names = (await readdir(dir).catch(ignoreMissing)) ?? []
  for (const name of names) if (logName.test(name)) await boundLog(join(dir, name), bytesMax)
}

async function boundLog(path: string, bytesMax: number): Promise<void> {
  const { O_RDWR, O_NOFOLLOW, O_NONBLOCK } = constants
  const file = await open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK).catch(ignoreMissing)
  if (file === undefined) return
  try {
    const found = await file.stat()
    // Blocks: a program that does not append leaves a hole before what it writes after a cut.
    const kept = Math.min(found.size, found.blocks * blockBytes)
    if (!found.isFile() || found.nlink !== 1 || kept <= bytesMax) return
    // First, because the disk may be full.
    await rm(olderLog(path), { force: true })
    await keepNewest(file, { path: olderLog(path), bytesMax })
    await file.truncate(0)
  } finally {
    await file.close()
  }
}

/** Bytes of a block in what `stat` counts. */
const blockBytes = 512

async function keepNewest(
  file: FileHandle,
  { path, bytesMax }: { path: string; bytesMax: number },
): Promise<void> {
  const older = await open(path, "wx", 0o600)
  try {
    const buffer = Buffer.alloc(Math.min(bytesMax, 1024 ** 2))
    let at = Math.max(0, (await file.stat()).size - bytesMax)
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length, at)
      if (bytesRead === 0) return
      await older.write(buffer, 0, bytesRead)
      at += bytesRead
    }
  } finally {
    await older.close()
  }
}

/** It is gone, or its name leads to something else than a file. */
function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (!["ENOENT", "ENOTDIR", "ELOOP", "ENXIO", "EISDIR"].includes(error.code ?? "")) throw error
}
