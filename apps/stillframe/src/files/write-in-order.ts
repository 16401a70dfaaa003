import { constants, write } from "node:fs"
import { type FileHandle, open } from "node:fs/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { counted } from "@stillframe/domain/text/counted"
import { unlessAborted } from "./run-verb.ts"

/** How long to wait for room in a pipe that another process has set not to block. */
const fullPipeMs = 5

/** Writes pieces one after the other where `fd` stands. */
export async function writeInOrder(
  fd: number,
  pieces: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<number> {
  let bytes = 0
  for await (const piece of pieces) {
    for (let done = 0; done < piece.length;)
      done += await unlessAborted(writeSome(fd, piece.subarray(done)), signal)
    bytes += piece.length
  }
  return bytes
}

/**
 * Opens a block device of at least `bytes` bytes, 0 where that is not known, for writing. Throws where it is
 * smaller, and where the system uses it, such as for a mounted file system.
 */
export async function openBlockDevice(path: string, bytes: number): Promise<FileHandle> {
  const device = await open(path, constants.O_RDWR | constants.O_EXCL)
  const { bytesRead } = bytes > 0 ? await device.read(Buffer.alloc(1), 0, 1, bytes - 1) : { bytesRead: 1 }
  if (bytesRead > 0) return device
  await device.close()
  throw new StillframeError(
    "insufficient_storage",
    `${path} is smaller than the content, which has ${counted(bytes, "byte")}; name a larger device. Nothing was written`,
  )
}

/** Resolves with 0 where a pipe that must not block is full. */
function writeSome(fd: number, bytes: Uint8Array): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  write(fd, bytes, 0, bytes.length, null, (error, written) => {
    if (error === null) resolve(written)
    else if (error.code === "EAGAIN") setTimeout(resolve, fullPipeMs, 0)
    else reject(error)
  })
  return promise
}
