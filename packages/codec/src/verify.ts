import type { Algorithm } from "@stillframe/domain/compression"
import { counted } from "@stillframe/domain/text/counted"
import { bytesReporter, type OnProgress, threadsFor } from "./compress.ts"
import { batchBytesMax, batchCount } from "./frames/batches.ts"
import { fileError } from "./frames/files.ts"
import { type Frames, openFrames } from "./frames/open.ts"
import { corrupted } from "./frames/seek-table.ts"
import { createControl } from "./threads/control.ts"
import { runThreads } from "./threads/threads.ts"
import type { Ring } from "./threads/verify-task.ts"

export interface Verified {
  /** Undefined for a file without a frame, which is empty in either. */
  readonly algorithm: Algorithm | undefined
  /** True if the bytes were read past the page cache. */
  readonly fromDevice: boolean
  /** The hash of the content, in hexadecimal. */
  readonly sha256: string
  readonly uncompressedBytes: number
}

/**
 * Reads a compressed file back, decompresses all of it and compares its SHA-256 (hexadecimal) and size where
 * they are known; without them, frames and table are held against each other and their checksums. Throws
 * `corrupted` when anything differs; an abort throws the signal's reason. `threads` threads decode and one
 * more hashes in order.
 *
 * `fromDevice` says whether the bytes came past the page cache (O_DIRECT), as they must before anything is
 * deleted on the strength of them; false where the file system cannot do that (tmpfs).
 */
export async function verifyFile(options: {
  path: string
  sha256?: string
  uncompressedBytes?: number
  threads: number
  signal: AbortSignal
  onProgress?: OnProgress | undefined
}): Promise<Verified> {
  options.signal.throwIfAborted()
  try {
    await using opened = await openFrames(options.path, { fromDevice: true })
    const { frames } = opened
    const { fromDevice, uncompressedBytes } = frames
    const algorithm = frames.table.frameCount > 0 ? frames.algorithm : undefined
    const expected = { uncompressedBytes, ...options }
    if (uncompressedBytes !== expected.uncompressedBytes)
      throw corrupted(
        `it holds ${counted(uncompressedBytes, "byte")} instead of ${expected.uncompressedBytes}`,
      )
    const sha256 = (await hashFrames(frames, options)) ?? ""
    if (expected.sha256 !== undefined && sha256 !== expected.sha256.toLowerCase())
      throw corrupted(`its content has the SHA-256 ${sha256} instead of ${expected.sha256}`)
    return { algorithm, fromDevice, sha256, uncompressedBytes }
  } catch (thrown) {
    throw fileError(thrown)
  }
}

const slotsPerThread = 4

async function hashFrames(
  frames: Frames,
  options: { threads: number; signal: AbortSignal; onProgress?: OnProgress | undefined },
): Promise<string | undefined> {
  const control = createControl()
  const count = batchCount(frames)
  const decoders = threadsFor({ kind: "decode-to-ring", control, frames } as const, options.threads, count)
  const ring = createRing(frames, Math.min(slotsPerThread * Math.max(1, decoders.length), Math.max(1, count)))
  const tasks = decoders.map((task) => ({ ...task, ring }))
  const [sha256] = await runThreads([{ kind: "hash-ring", control, frames, ring }, ...tasks], {
    control,
    signal: options.signal,
    onFramesDone: bytesReporter(options.onProgress, frames.uncompressedBytes),
  })
  return sha256
}

function createRing(frames: Frames, slotCount: number): Ring {
  return {
    slotCount,
    content: new Uint8Array(new SharedArrayBuffer(slotCount * batchBytesMax(frames))),
    ready: new Int32Array(new SharedArrayBuffer(4 * slotCount)),
    zeros: new Uint8Array(new SharedArrayBuffer(frames.table.frameCount)),
  }
}
