import { readSync, writeSync } from "node:fs"
import { type FileHandle, open, rm } from "node:fs/promises"
import { type ErrorCode, StillframeError } from "@stillframe/domain/errors"

const codes: Readonly<Record<string, ErrorCode>> = {
  ENOENT: "not_found",
  EEXIST: "conflict",
  ENOSPC: "insufficient_storage",
  EDQUOT: "insufficient_storage",
  EFBIG: "insufficient_storage",
  EROFS: "storage_unavailable",
  ESTALE: "storage_unavailable",
}

/** A system call's error with a code of ours and the system's error as cause; anything else comes back as it is. */
export function fileError(thrown: unknown): unknown {
  const error = thrown as NodeJS.ErrnoException
  if (!(thrown instanceof Error) || error.syscall === undefined) return thrown
  return new StillframeError(
    codes[error.code ?? ""] ?? "storage_failed",
    `${error.message}; check the path, its permissions and the free space`,
    { cause: thrown },
  )
}

/** The size of a regular file. Throws `invalid_request` for anything else, whose size says nothing. */
export async function regularFileBytes(handle: FileHandle, path: string): Promise<number> {
  const stat = await handle.stat()
  if (stat.isFile()) return stat.size
  throw new StillframeError("invalid_request", `${path} is not a regular file; name one that is`)
}

/** Creates `path`, which must not exist, lets `write` fill it and syncs it if asked; after any failure it is gone again. */
export async function writeNewFile<Result>(
  { path, sync }: { path: string; sync: boolean },
  write: (handle: FileHandle) => Promise<Result>,
): Promise<Result> {
  const handle = await open(path, "wx")
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

export function writeFully(fd: number, buffer: Uint8Array, position: number): void {
  for (let done = 0; done < buffer.length;) {
    done += writeSync(fd, buffer, done, buffer.length - done, position + done)
  }
}

export function shortened(): StillframeError {
  return new StillframeError(
    "storage_failed",
    "the file became shorter while it was read; make sure nothing else writes to it and try again",
  )
}
