import { holesOf } from "@stillframe/storage/holes"
import { type CodecId, loadCodec } from "../frames/codecs.ts"
import { readFully, writeFully } from "../frames/files.ts"
import type { FrameCodec } from "../frames/frame-codec.ts"
import { entryWords } from "../frames/seek-table.ts"
import { type Control, claim, countFrame, passTurn, throwIfStopped, turn, waitUntil } from "./control.ts"

/**
 * Uncompressed bytes of every frame but the last. On a guest, zstd 1 reaches 1.587× at 64 KiB, 256 KiB and 2
 * MiB alike.
 */
export const frameBytes = 256 * 1024

/**
 * Frames that a thread compresses before it takes its turn to write: 2 MiB, the unit of writes and of
 * waiting.
 */
export const batchFrames = 8

export interface CompressTask {
  kind: "compress"
  control: Control
  sourceFd: number
  destinationFd: number
  /** True for a destination that takes bytes only in order, as a pipe does. */
  inOrder: boolean
  sourceBytes: number
  codec: CodecId
  level: number
  /** The seek table in the making, `entryWords` for each frame. */
  entries: Uint32Array<SharedArrayBuffer>
}

/** Takes batches until none is left: read, compress, and when all batches before have their place, write. */
export function runCompressTask(task: CompressTask): void {
  const { control, entries } = task
  const frameCount = entries.length / entryWords
  const batchCount = Math.ceil(frameCount / batchFrames)
  const compressFrame = frameCompressor(task)
  const output = Buffer.allocUnsafeSlow(batchFrames * compressFrame.outputBytesMax)
  for (let batch; (batch = claim(control, batchCount)) !== undefined;) {
    const first = batch * batchFrames
    const end = Math.min(first + batchFrames, frameCount)
    let length = 0
    for (let frame = first; frame < end; frame++) {
      throwIfStopped(control)
      const start = length
      length += compressFrame.into(output.subarray(start), frame)
      entries[frame * entryWords] = length - start
      entries[frame * entryWords + 1] = Math.min(frameBytes, task.sourceBytes - frame * frameBytes)
      // Both formats end a frame in the checksum of its content.
      entries[frame * entryWords + 2] = output.readUInt32LE(length - 4)
      countFrame(control)
    }
    writeBatch(task, batch, output.subarray(0, length))
  }
}

function frameCompressor(task: CompressTask): {
  outputBytesMax: number
  into(output: Uint8Array, frame: number): number
} {
  const codec = loadCodec(task.codec)
  const content = Buffer.allocUnsafeSlow(frameBytes)
  const zeros = Buffer.alloc(frameBytes)
  const holes = holesOf(task.sourceFd, task.sourceBytes)
  const zeroFrame = compressed(codec, zeros, task.level)
  return {
    outputBytesMax: codec.compressBound(frameBytes),
    into(output, frame) {
      const position = frame * frameBytes
      const piece = content.subarray(0, Math.min(frameBytes, task.sourceBytes - position))
      // The last frame may be a shorter one, which has other bytes than the zero frame.
      const isHole = piece.length === frameBytes && holes.cover(position, frameBytes)
      if (!isHole) {
        readFully(task.sourceFd, piece, position)
        if (!piece.equals(zeros)) return codec.compressFrame(piece, output, task.level)
      }
      output.set(zeroFrame)
      return zeroFrame.length
    },
  }
}

function compressed(codec: FrameCodec, content: Uint8Array, level: number): Uint8Array {
  const frame = new Uint8Array(codec.compressBound(content.length))
  return frame.slice(0, codec.compressFrame(content, frame, level))
}

/** Behind all batches before it. Where the place can be given, the next batch need not wait for the write. */
function writeBatch(
  { control, destinationFd, inOrder }: CompressTask,
  batch: number,
  bytes: Uint8Array,
): void {
  waitUntil(control, () => turn(control) === batch)
  const place = control.offset[0] ?? 0n
  control.offset[0] = place + BigInt(bytes.length)
  if (inOrder) writeFully(destinationFd, bytes, null)
  passTurn(control)
  if (!inOrder) writeFully(destinationFd, bytes, Number(place))
}
