import { type Control, turn, waitUntil } from "./control.ts"
import { writeFully } from "./files.ts"
import { batchContentBytes, contentBytes, decodeBatches, framesPerBatch } from "./frame-decoder.ts"
import type { Frames } from "./open-frames.ts"

export interface DecodeToFileTask {
  kind: "decode-to-file"
  control: Control
  frames: Frames
  destinationFd: number
}

/** Writes every frame at its place; frames of zeros are left out and stay holes of the file. */
export function runDecodeToFile({ control, frames, destinationFd }: DecodeToFileTask): void {
  const content = Buffer.allocUnsafeSlow(frames.table.frameBytesLargest)
  decodeBatches(frames, control, {
    target: () => content,
    decoded: (frame, bytes, zeros) => {
      if (!zeros) writeFully(destinationFd, bytes, frames.table.positions[frame] ?? 0)
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

/** Sends each batch as soon as all of its frames are good: its content, or undefined when that is all zeros. */
export function runDecodeToMessages(
  { control, frames, batchesAhead }: DecodeToMessagesTask,
  send: (batch: number, content: ArrayBuffer | undefined) => void,
): void {
  const { table } = frames
  const perBatch = framesPerBatch(table)
  let content: Buffer<ArrayBuffer> = Buffer.alloc(0)
  let start = 0
  let allZeros = true
  decodeBatches(frames, control, {
    mayStart(batch) {
      waitUntil(control, () => batch < turn(control) + batchesAhead)
      start = table.positions[batch * perBatch] ?? 0
      allZeros = true
      content = Buffer.allocUnsafeSlow(batchContentBytes(table, batch))
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
