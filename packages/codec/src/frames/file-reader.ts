import type { FileHandle } from "node:fs/promises"
import { alignedMemory, pageBytes } from "./direct.ts"
import { corrupted } from "./seek-table.ts"

/** Reads a file or a stream from its start on, once, through one piece of memory. */
export interface FileReader {
  /** Bytes that were read or skipped. */
  position(): number
  /** At most `lengthMax` bytes, none at the end of the file; valid until the next call. */
  some(lengthMax: number): Promise<Buffer>
  /**
   * The bytes that are at hand without another read, at least one but at the end of the file; valid until the
   * next call.
   */
  ahead(): Promise<Buffer>
  /** Passes over the first `length` bytes of those. */
  take(length: number): void
  /** A copy of exactly `length` bytes. Throws `corrupted` where the file ends before. */
  exactly(length: number): Promise<Buffer>
  /** Throws `corrupted` where the file ends before. */
  skip(length: number): Promise<void>
}

const readBytes = 1024 * 1024

/** `fromDevice`: the handle was opened with O_DIRECT, so it is read by whole pages. */
export function fileReader(handle: FileHandle, fileBytes: number, { fromDevice = false } = {}): FileReader {
  const memory = fromDevice ? Buffer.from(alignedMemory(readBytes).buffer) : Buffer.allocUnsafeSlow(readBytes)
  return readerOf({
    async next(position) {
      const before = fromDevice ? position % pageBytes : 0
      const { bytesRead } = await handle.read(memory, 0, readBytes, position - before)
      return memory.subarray(Math.min(before, bytesRead), bytesRead)
    },
    bytes: fileBytes,
    seekable: true,
  })
}

/** For a pipe, a terminal or standard input, whose length is known only at its end. */
export function streamReader(pieces: AsyncIterator<Buffer>): FileReader {
  return readerOf({
    async next() {
      const { done, value } = await pieces.next()
      return done === true ? Buffer.alloc(0) : value
    },
    bytes: Infinity,
    seekable: false,
  })
}

interface Source {
  /** The bytes at `position`, none at the end. */
  next: (position: number) => Promise<Buffer>
  bytes: number
  seekable: boolean
}

function readerOf({ next, bytes: sourceBytes, seekable }: Source): FileReader {
  let rest: Buffer = Buffer.alloc(0)
  let position = 0
  const some = async (lengthMax: number): Promise<Buffer> => {
    if (rest.length === 0 && lengthMax > 0) rest = await next(position)
    const piece = rest.subarray(0, lengthMax)
    rest = rest.subarray(piece.length)
    position += piece.length
    return piece
  }
  const assertLeft = (length: number): void => {
    if (length > sourceBytes - position) throw endsWithinFrame()
  }
  return {
    position: () => position,
    some,
    async ahead() {
      if (rest.length === 0) rest = await next(position)
      return rest
    },
    take(length) {
      rest = rest.subarray(length)
      position += length
    },
    async exactly(length) {
      assertLeft(length)
      const bytes = Buffer.allocUnsafeSlow(length)
      for (let done = 0; done < length;) {
        const piece = await some(length - done)
        if (piece.length === 0) throw endsWithinFrame()
        done += piece.copy(bytes, done)
      }
      return bytes
    },
    async skip(length) {
      assertLeft(length)
      const buffered = Math.min(length, rest.length)
      rest = rest.subarray(buffered)
      position += seekable ? length : buffered
      for (let missing = seekable ? 0 : length - buffered; missing > 0;) {
        const piece = await some(missing)
        if (piece.length === 0) throw endsWithinFrame()
        missing -= piece.length
      }
    },
  }
}

function endsWithinFrame(): Error {
  return corrupted("it ends within a frame")
}
