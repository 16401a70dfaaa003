import type { FileHandle } from "node:fs/promises"
import { corrupted } from "./seek-table.ts"

/** Reads a file from its start on, once, through one piece of memory. */
export interface FileReader {
  /** At most `lengthMax` bytes, none at the end of the file; valid until the next call. */
  some(lengthMax: number): Promise<Buffer>
  /** A copy of exactly `length` bytes. Throws `corrupted` where the file ends before. */
  exactly(length: number): Promise<Buffer>
  /** Throws `corrupted` where the file ends before. */
  skip(length: number): Promise<void>
}

const pieceBytes = 1024 * 1024

export function fileReader(handle: FileHandle, fileBytes: number): FileReader {
  const memory = Buffer.allocUnsafeSlow(pieceBytes)
  let rest = memory.subarray(0, 0)
  let position = 0
  const some = async (lengthMax: number): Promise<Buffer> => {
    if (rest.length === 0) {
      const { bytesRead } = await handle.read(memory, 0, pieceBytes, position)
      rest = memory.subarray(0, bytesRead)
      position += bytesRead
    }
    const piece = rest.subarray(0, lengthMax)
    rest = rest.subarray(piece.length)
    return piece
  }
  const assertLeft = (length: number): void => {
    if (length > fileBytes - position + rest.length) throw corrupted("it ends within a frame")
  }
  return {
    some,
    async exactly(length) {
      assertLeft(length)
      const bytes = Buffer.allocUnsafeSlow(length)
      for (let done = 0; done < length;) {
        const piece = await some(length - done)
        if (piece.length === 0) throw corrupted("it ends within a frame")
        done += piece.copy(bytes, done)
      }
      return bytes
    },
    async skip(length) {
      assertLeft(length)
      const buffered = Math.min(length, rest.length)
      rest = rest.subarray(buffered)
      position += length - buffered
    },
  }
}
