import { readSync, writeSync } from "node:fs"
import { type FileHandle, open, rm } from "node:fs/promises"
import { type ErrorCode, StillframeError } from "@stillframe/domain/errors"

interface FileFailure {
  readonly code: ErrorCode
  readonly message: string
}

const full: FileFailure = { code: "insufficient_storage", message: "no room is left; free some space" }
const away: FileFailure = {
  code: "storage_unavailable",
  message: "the file system is read-only or unavailable; mount it again for writing",
}
const failures: Readonly<Record<string, FileFailure>> = {
  ENOENT: { code: "not_found", message: "a file is missing; bring it back" },
  EEXIST: { code: "conflict", message: "a file is there already; remove it, or choose another name" },
  ENOSPC: full,
  EDQUOT: full,
  EFBIG: { ...full, message: "the file would be larger than its file system allows; use another one" },
  EROFS: away,
  ESTALE: away,
}
const otherFailure: FileFailure = {
  code: "storage_failed",
  message: "a file cannot be read or written; check its permissions and its disk",
}

/**
 * A system call's error in our words, with those of the system, which name the path, in `said`; anything else
 * as it is.
 */
export function fileError(thrown: unknown): unknown {
  const error = thrown as NodeJS.ErrnoException
  if (!(thrown instanceof Error) || error.syscall === undefined) return thrown
  const { code, message } = failures[error.code ?? ""] ?? otherFailure
  return new StillframeError(code, message, { cause: thrown, said: error.message })
}

/**
 * Creates `path`, which must not exist, lets `write` fill it and syncs it if asked; after any failure it is
 * gone again.
 */
export async function writeNewFile<Result>(
  { path, mode, sync }: { path: string; mode?: number | undefined; sync: boolean },
  write: (handle: FileHandle) => Promise<Result>,
): Promise<Result> {
  const handle = await open(path, "wx", mode)
  try {
    const result = await write(handle)
    if (sync) await handle.sync()
    await handle.close()
    return result
  } catch (thrown) {
    await handle.close()
    await rm(path, { force: true })
    throw thrown
  }
}

/** Fills `buffer` from `position` on. Throws `storage_failed` when the file ends before. */
export function readFully(fd: number, buffer: Uint8Array, position: number): void {
  for (let done = 0; done < buffer.length;) {
    const bytes = readSync(fd, buffer, done, buffer.length - done, position + done)
    if (bytes === 0) throw shortened()
    done += bytes
  }
}

/**
 * `position`: null writes on where the last write ended, as a pipe must be written, and waits while it is
 * full.
 */
export function writeFully(fd: number, buffer: Uint8Array, position: number | null): void {
  for (let done = 0; done < buffer.length;) {
    const at = position === null ? null : position + done
    try {
      done += writeSync(fd, buffer, done, buffer.length - done, at)
    } catch (thrown) {
      // Another holder of the pipe, such as Node itself, has set it not to block.
      if (position !== null || (thrown as NodeJS.ErrnoException).code !== "EAGAIN") throw thrown
      Atomics.wait(neverChanged, 0, 0, fullPipeMs)
    }
  }
}

const fullPipeMs = 5
const neverChanged = new Int32Array(new SharedArrayBuffer(4))

/** Writes all bytes at a position without blocking the event loop. */
export async function writeAll(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, position + done)
    done += bytesWritten
  }
}

export function shortened(): StillframeError {
  return new StillframeError(
    "storage_failed",
    "the file became shorter while it was read; make sure nothing else writes to it and try again",
  )
}
