import { open } from "node:fs/promises"
import type { Algorithm } from "@stillframe/domain/compression"
import { StillframeError } from "@stillframe/domain/errors"
import { assertLevel, codecFor } from "./codecs.ts"
import { batchFrames, type CompressTask, frameBytes } from "./compress-task.ts"
import { createControl } from "./control.ts"
import { fileError, regularFileBytes, writeNewFile } from "./files.ts"
import { flushAlong } from "./flush-along.ts"
import { encodeSeekTable, entryWords, frameCountMax } from "./seek-table.ts"
import { runThreads } from "./threads.ts"

/** Called a few times a second and once at the end, with bytes of uncompressed content. */
export type OnProgress = (doneBytes: number, totalBytes: number) => void

/**
 * Compresses `source` into `destination`, which must not exist, as independent frames and a seek table.
 * All reading, compressing and writing is done by `threads` threads with about 12 MiB each. On failure or abort the
 * destination is gone; an abort throws the signal's reason.
 */
export async function compressFile(options: {
  source: string
  destination: string
  algorithm: Algorithm
  level: number
  threads: number
  signal: AbortSignal
  /** Default true. False: the caller syncs the file, for example while it is read back. */
  sync?: boolean
  onProgress?: OnProgress | undefined
}): Promise<{ uncompressedBytes: number; compressedBytes: number }> {
  const { sync = true } = options
  options.signal.throwIfAborted()
  assertLevel(options.algorithm, options.level)
  try {
    await using source = await open(options.source)
    const sourceBytes = await regularFileBytes(source, options.source)
    const frameCount = Math.ceil(sourceBytes / frameBytes)
    if (frameCount > frameCountMax) throw tooLarge(options.source)
    return await writeNewFile({ path: options.destination, sync }, async (destination) => {
      const task: CompressTask = {
        kind: "compress",
        control: createControl(),
        sourceFd: source.fd,
        destinationFd: destination.fd,
        sourceBytes,
        codec: codecFor(options.algorithm),
        level: options.level,
        entries: new Uint32Array(new SharedArrayBuffer(4 * entryWords * frameCount)),
      }
      const threads = threadsFor(task, options.threads, Math.ceil(frameCount / batchFrames))
      const run = {
        control: task.control,
        signal: options.signal,
        onFramesDone: bytesReporter(options.onProgress, sourceBytes),
      }
      await flushAlong(destination, runThreads(threads, run))
      const table = encodeSeekTable(task.entries)
      const framesBytes = Number(task.control.offset[0])
      await destination.write(table, 0, table.length, framesBytes)
      return { uncompressedBytes: sourceBytes, compressedBytes: framesBytes + table.length }
    })
  } catch (thrown) {
    throw fileError(thrown)
  }
}

/** The same task once for each thread, and never more threads than batches. */
export function threadsFor<Task>(task: Task, threads: number, batchCount: number): Task[] {
  return Array.from({ length: Math.min(Math.max(1, threads), batchCount) }, () => task)
}

export function bytesReporter(
  onProgress: OnProgress | undefined,
  totalBytes: number,
): ((frames: number) => void) | undefined {
  return onProgress && ((frames) => onProgress(Math.min(frames * frameBytes, totalBytes), totalBytes))
}

function tooLarge(path: string): StillframeError {
  return new StillframeError(
    "payload_too_large",
    `${path} is larger than ${frameCountMax * frameBytes} bytes, the most one file may hold; leave it uncompressed`,
  )
}
