import { constants } from "node:fs"
import { open, type FileHandle } from "node:fs/promises"
import { StillframeError } from "@stillframe/domain/errors"

const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants

/**
 * Opens a file that another user could have put there, for reading, and judges it by its descriptor: the open
 * of a pipe would wait for its other end, and a link may lead anywhere. `flags`: more of them, such as
 * `O_DIRECT`. Throws `corrupted` if it is not a regular file, and the system's error when it cannot be
 * opened.
 */
export async function openRegular(path: string, flags = 0): Promise<FileHandle> {
  const handle = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | flags).catch(
    (error: NodeJS.ErrnoException) => {
      // A link, and a socket or a device without a driver.
      throw error.code === "ELOOP" || error.code === "ENXIO" ? notRegular(error) : error
    },
  )
  try {
    if (!(await handle.stat()).isFile()) throw notRegular()
    return handle
  } catch (error) {
    await handle.close()
    throw error
  }
}

/** The whole text of a small file. Throws as `openRegular` does, and `corrupted` for more than `bytesMax`. */
export async function readRegular(path: string, bytesMax: number): Promise<string> {
  await using handle = await openRegular(path)
  const { size } = await handle.stat()
  if (size > bytesMax)
    throw new StillframeError(
      "corrupted",
      `it has more than ${bytesMax} bytes; bring the file back from a backup`,
    )
  return await handle.readFile("utf8")
}

export function notRegular(cause?: unknown): StillframeError {
  return new StillframeError(
    "corrupted",
    "a link, directory or special file lies where a file should; bring the file back from a backup",
    { cause },
  )
}
