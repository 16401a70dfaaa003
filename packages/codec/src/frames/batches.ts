import type { SeekTable } from "./seek-table.ts"

/**
 * Content that a thread takes at once, and compressed bytes that it reads for it; one frame may have more.
 */
const batchBytes = 2 * 2 ** 20
const batchCompressedBytes = 2 * batchBytes

/**
 * The first frame of each batch, and at the end the number of frames. A batch has as many frames as fit,
 * because other programs write very small ones and very large ones into one file.
 */
export function batchesOf({ frameCount, offsets, positions }: SeekTable): Uint32Array<SharedArrayBuffer> {
  const starts: number[] = []
  let first = 0
  for (let frame = 0; frame < frameCount; frame++) {
    const bytes = positions[frame + 1]! - positions[first]!
    const compressedBytes = offsets[frame + 1]! - offsets[first]!
    const fits = frame > first && bytes <= batchBytes && compressedBytes <= batchCompressedBytes
    if (!fits) starts.push((first = frame))
  }
  const batches = new Uint32Array(new SharedArrayBuffer(4 * (starts.length + 1)))
  batches.set(starts)
  batches[starts.length] = frameCount
  return batches
}

interface Batched {
  readonly table: SeekTable
  readonly batches: Uint32Array
}

export function batchCount({ batches }: Batched): number {
  return batches.length - 1
}

/** Its first frame, and the one behind its last. */
export function batchFrames({ batches }: Batched, batch: number): { first: number; end: number } {
  return { first: batches[batch] ?? 0, end: batches[batch + 1] ?? 0 }
}

/** The position of a batch's content. */
export function batchPosition({ table, batches }: Batched, batch: number): number {
  return table.positions[batches[batch] ?? 0] ?? 0
}

/** Content of a batch in bytes. */
export function batchContentBytes(frames: Batched, batch: number): number {
  return batchPosition(frames, batch + 1) - batchPosition(frames, batch)
}

/** The content of the largest batch is at most this. */
export function batchBytesMax({ table }: Batched): number {
  const contentBytes = table.positions[table.frameCount] ?? 0
  return Math.min(contentBytes, Math.max(batchBytes, table.frameBytesLargest))
}
