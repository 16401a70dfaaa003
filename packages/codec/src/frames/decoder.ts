import { readSync } from "node:fs"
import { type Control, claim, countFrame, throwIfStopped } from "../threads/control.ts"
import { xxh64Low32 } from "../zstd/xxh64.ts"
import { batchCount, batchFrames } from "./batches.ts"
import { loadCodec } from "./codecs.ts"
import { alignedMemory, pagesAround } from "./direct.ts"
import { shortened } from "./files.ts"
import type { FrameCodec } from "./frame-codec.ts"
import type { Frames } from "./open.ts"
import { corrupted, type SeekTable } from "./seek-table.ts"

export interface FrameDecoder {
  /**
   * Decodes a frame into the start of `destination` and returns whether its content is all zeros, in which
   * case `destination` need not have been written. Throws `corrupted`.
   */
  decode(frame: number, compressed: Uint8Array, destination: Uint8Array): boolean
}

type DecoderOf = Pick<Frames, "algorithm" | "codec" | "table">

/** Not shared between threads. */
export function frameDecoder({ algorithm, codec: id, table }: DecoderOf): FrameDecoder {
  const codec = loadCodec(id)
  const zeros = Buffer.alloc(table.frameBytesLargest)
  // Equal frames have equal content, so the bytes of one frame of zeros tell all others without decoding
  // them.
  let zeroFrame: Buffer = Buffer.alloc(0)
  let zeroFrameContent = -1
  let zeroFrameChecksum: number | undefined
  return {
    decode(frame, compressed, destination) {
      const bytes = contentBytes(table, frame)
      // An empty frame has no content that a checksum could tell from another's.
      const checksum = bytes === 0 ? undefined : table.checksums?.[frame]
      const own = ownChecksum(compressed)
      if (own !== undefined) checkChecksum(frame, own, checksum)
      const isKnown = bytes === zeroFrameContent && checksum === zeroFrameChecksum
      if (isKnown && zeroFrame.equals(compressed)) return true
      const content = destination.subarray(0, bytes)
      decompress(codec, frame, compressed, content)
      if (own === undefined && checksum !== undefined && algorithm === "zstd")
        checkChecksum(frame, xxh64Low32(content), checksum)
      if (!zeros.subarray(0, bytes).equals(content)) return false
      zeroFrame = Buffer.from(compressed)
      zeroFrameContent = bytes
      zeroFrameChecksum = checksum
      return true
    },
  }
}

export function contentBytes({ positions }: SeekTable, frame: number): number {
  return (positions[frame + 1] ?? 0) - (positions[frame] ?? 0)
}

/**
 * Takes batches until none is left, reads each with one call and decodes its frames: into the buffer of
 * `target` for the frame; then `decoded` is called. `mayStart` blocks until there is room for the batch,
 * `finished` ends it.
 */
export function decodeBatches(
  frames: Frames,
  control: Control,
  sink: {
    mayStart?: (batch: number) => void
    target: (frame: number, batch: number) => Uint8Array
    decoded: (frame: number, content: Uint8Array, zeros: boolean) => void
    finished?: (batch: number) => void
  },
): void {
  const { table } = frames
  const read = rangeReader(frames)
  const decoder = frameDecoder(frames)
  for (let batch; (batch = claim(control, batchCount(frames))) !== undefined;) {
    sink.mayStart?.(batch)
    const { first, end } = batchFrames(frames, batch)
    const start = table.offsets[first] ?? 0
    const compressed = read(start, table.offsets[end] ?? 0)
    for (let frame = first; frame < end; frame++) {
      throwIfStopped(control)
      const bytes = compressed.subarray(
        (table.offsets[frame] ?? 0) - start,
        (table.offsets[frame + 1] ?? 0) - start,
      )
      const target = sink.target(frame, batch).subarray(0, contentBytes(table, frame))
      sink.decoded(frame, target, decoder.decode(frame, bytes, target))
      countFrame(control)
    }
    sink.finished?.(batch)
  }
}

/** Reads ranges of the file into memory that it reuses and that grows to the largest range. */
function rangeReader({ fd, fromDevice }: Frames): (start: number, end: number) => Uint8Array {
  let memory: Uint8Array = new Uint8Array(0)
  return (start, end) => {
    const { position, bytes } = fromDevice ? pagesAround(start, end) : { position: start, bytes: end - start }
    if (memory.length < bytes) memory = fromDevice ? alignedMemory(bytes) : Buffer.allocUnsafeSlow(bytes)
    // The last page of a direct read ends with the file.
    for (let done = 0; done < end - position;) {
      const bytesRead = readSync(fd, memory, done, bytes - done, position + done)
      if (bytesRead === 0) throw shortened()
      done += bytesRead
    }
    return memory.subarray(start - position, end - position)
  }
}

function decompress(codec: FrameCodec, frame: number, compressed: Uint8Array, content: Uint8Array): void {
  let bytes
  try {
    bytes = codec.decompressFrame(compressed, content)
  } catch (thrown) {
    throw corrupted(`frame ${frame} does not decompress`, { cause: thrown })
  }
  if (bytes !== content.length) throw corrupted(`frame ${frame} has another length than its seek table says`)
}

/** The checksum at the end of a frame, if its header says that there is one. */
function ownChecksum(compressed: Uint8Array): number | undefined {
  // Both formats say it in the same bit of the byte behind the magic number.
  if (compressed.length < 9 || ((compressed[4] ?? 0) & checksumFlag) === 0) return undefined
  const view = new DataView(compressed.buffer, compressed.byteOffset, compressed.length)
  return view.getUint32(compressed.length - 4, true)
}

const checksumFlag = 0x04

function checkChecksum(frame: number, found: number, expected: number | undefined): void {
  if (expected !== undefined && found !== expected)
    throw corrupted(`frame ${frame} has another checksum than its seek table says`)
}
