import type { FileHandle } from "node:fs/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { counted } from "@stillframe/domain/text/counted"
import { contentBytes, type FrameDecoder, frameDecoder } from "./decoder.ts"
import { fileError, shortened } from "./files.ts"
import { type Frames, openFrames } from "./open.ts"
import type { SeekTable } from "./seek-table.ts"

export interface Seekable extends AsyncDisposable {
  uncompressedBytes: number
  frameCount: number
  /** Content from `offset` on: `length` bytes, or fewer where it ends. Throws `corrupted`. */
  read(offset: number, length: number): Promise<Uint8Array>
}

/**
 * Opens a compressed file for reading at any place; each read decompresses the frames that it touches, and no
 * more.
 */
export async function openSeekable(path: string): Promise<Seekable> {
  const opened = await openFrames(path).catch((thrown: unknown) => {
    throw fileError(thrown)
  })
  const decoder = frameDecoder(opened.frames)
  return {
    uncompressedBytes: opened.frames.uncompressedBytes,
    frameCount: opened.frames.table.frameCount,
    async read(offset, length) {
      assertRange(offset, length)
      try {
        return await readContent(opened.handle, opened.frames, decoder, offset, length)
      } catch (thrown) {
        throw fileError(thrown)
      }
    },
    [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose](),
  }
}

async function readContent(
  handle: FileHandle,
  frames: Frames,
  decoder: FrameDecoder,
  offset: number,
  length: number,
): Promise<Uint8Array> {
  const { table, uncompressedBytes } = frames
  const end = Math.min(offset + length, uncompressedBytes)
  const bytes = end - offset
  if (bytes <= 0) return Buffer.alloc(0)
  let result = Buffer.alloc(Math.min(bytes, trustedBytes))
  const content = Buffer.allocUnsafeSlow(table.frameBytesLargest)
  for (let frame = frameAt(table, offset); ; frame++) {
    const position = table.positions[frame] ?? uncompressedBytes
    if (position >= end) break
    const compressed = await readFrame(handle, table, frame)
    const zeros = decoder.decode(frame, compressed, content)
    const from = Math.max(offset - position, 0)
    const to = Math.min(end - position, contentBytes(table, frame))
    if (position + to - offset > result.length) result = grown(result, bytes)
    // `result` already consists of zeros.
    if (!zeros) content.copy(result, position + from - offset, from, to)
  }
  return result
}

/**
 * Memory that a read takes on the word of the table alone, more than the largest frame; beyond it the memory
 * follows the content that was decoded, since a small file may claim terabytes.
 */
const trustedBytes = 16 * 2 ** 20

function grown(content: Buffer, bytesMax: number): Buffer<ArrayBuffer> {
  const larger = Buffer.alloc(Math.min(2 * content.length, bytesMax))
  content.copy(larger)
  return larger
}

async function readFrame(handle: FileHandle, { offsets }: SeekTable, frame: number): Promise<Uint8Array> {
  const start = offsets[frame] ?? 0
  const compressed = Buffer.allocUnsafeSlow((offsets[frame + 1] ?? 0) - start)
  for (let done = 0; done < compressed.length;) {
    const { bytesRead } = await handle.read(compressed, done, compressed.length - done, start + done)
    if (bytesRead === 0) throw shortened()
    done += bytesRead
  }
  return compressed
}

/** The last frame that starts at or before `offset`, found by halving: frames need not be of equal size. */
function frameAt({ positions, frameCount }: SeekTable, offset: number): number {
  let low = 0
  let high = frameCount
  while (high - low > 1) {
    const middle = (low + high) >>> 1
    if ((positions[middle] ?? 0) <= offset) low = middle
    else high = middle
  }
  return low
}

function assertRange(offset: number, length: number): void {
  if (Number.isSafeInteger(offset) && offset >= 0 && Number.isSafeInteger(length) && length >= 0) return
  throw new StillframeError(
    "invalid_request",
    `cannot read ${counted(length, "byte")} at ${offset}; give whole numbers from 0 on`,
  )
}
