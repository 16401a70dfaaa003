import { constants } from "node:fs"
import { open, readlink, realpath, type FileHandle } from "node:fs/promises"
import { StillframeError } from "@stillframe/domain/errors"

/** A caller's file, opened once: it is judged and read by its descriptor, whatever its name comes to mean. */
export interface HostFile extends AsyncDisposable {
  /** Its real path, which names that are relative to it begin at. */
  readonly path: string
  /** The file as its caller knows it, for messages. */
  readonly shown: string
  readonly handle: FileHandle
  /** A path of the descriptor, which every process of ours can open. */
  readonly opened: string
}

/**
 * Opens a regular file for reading. Throws `invalid_request` for a link, for anything else, and for a file
 * that cannot be read.
 */
export async function openHostFileAt(path: string, shown = path): Promise<HostFile> {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants
  // O_NONBLOCK: the open of a FIFO in its place would wait for a writer.
  const handle = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK).catch(
    (error: NodeJS.ErrnoException) => {
      const why = openFailure(error.code)
      throw why === undefined ? error : refusedFile(shown, why, error)
    },
  )
  try {
    if (!(await handle.stat()).isFile()) throw refusedFile(shown, "it is not a regular file")
    return {
      path,
      shown,
      handle,
      opened: descriptorPath(handle, path),
      [Symbol.asyncDispose]: () => handle.close(),
    }
  } catch (error) {
    await handle.close()
    throw error
  }
}

/** Undefined where the file is not to blame, as when this process has no descriptor left. */
function openFailure(code: string | undefined): string | undefined {
  if (code === "ELOOP") return "it was replaced by a link while it was looked at"
  if (code === "ENXIO") return "it is not a regular file"
  if (code === "ENOENT") return "it was removed while it was looked at"
  if (code === "EACCES" || code === "EPERM")
    return `this host's worker cannot read it (${code}); change its rights or its owner`
  return undefined
}

/** The present path of the descriptor. Only Linux tells it; elsewhere the path is resolved again. */
export async function pathOfDescriptor({ path, opened }: HostFile): Promise<string> {
  return opened === path ? realpath(path) : readlink(opened)
}

/** `shown`: a path as the caller gave it, never where its links lead. */
export function refusedFile(shown: string, why: string, cause?: unknown): StillframeError {
  return new StillframeError("invalid_request", `${JSON.stringify(shown)} is refused: ${why}`, { cause })
}

/**
 * A path of a descriptor that every process of ours can open. Elsewhere than on Linux it is the file's own.
 */
export function descriptorPath({ fd }: FileHandle, path: string): string {
  return process.platform === "linux" ? `/proc/${process.pid}/fd/${fd}` : path
}
