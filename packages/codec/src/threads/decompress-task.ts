import { batchContentBytes, batchPosition } from "../frames/batches.ts"
import { contentBytes, decodeBatches } from "../frames/decoder.ts"
import { writeFully } from "../frames/files.ts"
import type { Frames } from "../frames/open.ts"
import { type Control, turn, waitUntil } from "./control.ts"

export interface DecodeToFileTask {
  kind: "decode-to-file"
  control: Control
  frames: Frames
  destinationFd: number
}

/**
 * Written with one call. In a VM whose kernel hands free memory back to the host (free page reporting), whole
 * frames took 650 and 810 ms of processor time for 512 MiB and these 390 and 650, on a busy machine; the best
 * rounds are alike.
 */
const pieceBytes = 64 * 1024

/** Writes every frame at its place; frames of zeros are left out and stay holes of the file. */
export function runDecodeToFile({ control, frames, destinationFd }: DecodeToFileTask): void {
  const content = Buffer.allocUnsafeSlow(frames.table.frameBytesLargest)
  decodeBatches(frames, control, {
    target: () => content,
    decoded: (frame, bytes, zeros) => {
      if (zeros) return
      const position = frames.table.positions[frame] ?? 0
      for (let at = 0; at < bytes.length; at += pieceBytes)
        writeFully(destinationFd, bytes.subarray(at, at + pieceBytes), position + at)
    },
  })
}

export interface DecodeToMessagesTask {
  kind: "decode-to-messages"
  control: Control
  frames: Frames
  /** How many batches may be ahead of the one that the reader is at. */
  batchesAhead: number
}

/**
 * Sends each batch as soon as all of its frames are good: its content, or undefined when that is all zeros.
 */
export function runDecodeToMessages(
  { control, frames, batchesAhead }: DecodeToMessagesTask,
  send: (batch: number, content: ArrayBuffer | undefined) => void,
): void {
  const { table } = frames
  let content: Buffer<ArrayBuffer> = Buffer.alloc(0)
  let start = 0
  let allZeros = true
  decodeBatches(frames, control, {
    mayStart(batch) {
      waitUntil(control, () => batch < turn(control) + batchesAhead)
      start = batchPosition(frames, batch)
      allZeros = true
      content = Buffer.allocUnsafeSlow(batchContentBytes(frames, batch))
    },
    target: (frame) => {
      const at = (table.positions[frame] ?? 0) - start
      return content.subarray(at, at + contentBytes(table, frame))
    },
    decoded(_frame, bytes, zeros) {
      if (zeros) bytes.fill(0)
      else allZeros = false
    },
    finished: (batch) => send(batch, allZeros ? undefined : content.buffer),
  })
}
