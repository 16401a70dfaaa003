import { createHash } from "node:crypto"
import { batchBytesMax, batchCount, batchFrames, batchPosition } from "../frames/batches.ts"
import { contentBytes, decodeBatches } from "../frames/decoder.ts"
import type { Frames } from "../frames/open.ts"
import { type Control, passTurn, turn, waitUntil, wake } from "./control.ts"

/** Batches of decoded content on their way to the one thread that hashes them in order. */
export interface Ring {
  /** `slotCount` slots of equal size, one batch each. */
  content: Uint8Array<SharedArrayBuffer>
  slotCount: number
  /** For each slot, one more than the batch that is ready in it. */
  ready: Int32Array<SharedArrayBuffer>
  /** For each frame of the file, 1 when it is all zeros and was not written to its slot. */
  zeros: Uint8Array<SharedArrayBuffer>
}

export interface DecodeToRingTask {
  kind: "decode-to-ring"
  control: Control
  frames: Frames
  ring: Ring
}

export interface HashRingTask {
  kind: "hash-ring"
  control: Control
  frames: Frames
  ring: Ring
}

/** Decodes batches into the slots that the hashing thread has left. */
export function runDecodeToRing({ control, frames, ring }: DecodeToRingTask): void {
  decodeBatches(frames, control, {
    mayStart: (batch) => waitUntil(control, () => batch < turn(control) + ring.slotCount),
    target: (frame, batch) => frameInSlot(frames, ring, batch, frame),
    decoded: (frame, _content, zeros) => {
      ring.zeros[frame] = zeros ? 1 : 0
    },
    finished(batch) {
      Atomics.store(ring.ready, batch % ring.slotCount, batch + 1)
      wake(control)
    },
  })
}

/** Returns the SHA-256 of the whole content. The turn is the number of batches hashed. */
export function runHashRing({ control, frames, ring }: HashRingTask): string {
  const { table } = frames
  const hash = createHash("sha256")
  // One frame of zeros stays in the cache, where as many zeros from the ring would have to come from memory.
  const zeros = Buffer.alloc(table.frameBytesLargest)
  for (let batch = 0; batch < batchCount(frames); batch++) {
    waitUntil(control, () => Atomics.load(ring.ready, batch % ring.slotCount) === batch + 1)
    const { first, end } = batchFrames(frames, batch)
    for (let frame = first; frame < end; frame++) {
      const content = ring.zeros[frame] ? zeros : frameInSlot(frames, ring, batch, frame)
      hash.update(content.subarray(0, contentBytes(table, frame)))
    }
    passTurn(control)
  }
  return hash.digest("hex")
}

function frameInSlot(frames: Frames, ring: Ring, batch: number, frame: number): Uint8Array {
  const { positions } = frames.table
  const slot = (batch % ring.slotCount) * batchBytesMax(frames)
  const at = slot + (positions[frame] ?? 0) - batchPosition(frames, batch)
  return ring.content.subarray(at, at + contentBytes(frames.table, frame))
}
