import { bytesReporter, type OnProgress, threadsFor } from "./compress.ts"
import { createControl } from "./control.ts"
import { fileError } from "./files.ts"
import { batchCountOf } from "./frame-decoder.ts"
import { type Frames, openFrames } from "./open-frames.ts"
import { corrupted } from "./seek-table.ts"
import { runThreads } from "./threads.ts"
import { type Ring, slotBytes } from "./verify-task.ts"

/**
 * Reads a compressed file back, decompresses all of it and compares its SHA-256 (hexadecimal). Throws `corrupted` when
 * anything differs; an abort throws the signal's reason. `threads` threads decode and one more hashes in order.
 *
 * `fromDevice` says whether the bytes came past the page cache (O_DIRECT), as they must before anything is deleted on
 * the strength of them; false where the file system cannot do that (tmpfs).
 */
export async function verifyFile(options: {
  path: string
  sha256: string
  uncompressedBytes: number
  threads: number
  signal: AbortSignal
  onProgress?: OnProgress | undefined
}): Promise<{ fromDevice: boolean }> {
  options.signal.throwIfAborted()
  try {
    await using opened = await openFrames(options.path, { fromDevice: true })
    const { frames } = opened
    if (frames.uncompressedBytes !== options.uncompressedBytes) {
      throw corrupted(`it holds ${frames.uncompressedBytes} bytes instead of ${options.uncompressedBytes}`)
    }
    const sha256 = await hashFrames(frames, options)
    if (sha256 !== options.sha256.toLowerCase()) {
      throw corrupted(`its content has the SHA-256 ${sha256} instead of ${options.sha256}`)
    }
    return { fromDevice: frames.fromDevice }
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
  const batchCount = batchCountOf(frames.table)
  const decoders = threadsFor(
    { kind: "decode-to-ring", control, frames } as const,
    options.threads,
    batchCount,
  )
  const ring = createRing(frames, slotsPerThread * Math.max(1, decoders.length))
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
    content: new Uint8Array(new SharedArrayBuffer(slotCount * slotBytes(frames))),
    ready: new Int32Array(new SharedArrayBuffer(4 * slotCount)),
    zeros: new Uint8Array(new SharedArrayBuffer(frames.table.frameCount)),
  }
}
