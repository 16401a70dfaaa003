import { bytesReporter, type OnProgress, threadsFor } from "./compress.ts"
import { batchContentBytes, batchCount } from "./frames/batches.ts"
import { fileError, writeNewFile } from "./frames/files.ts"
import { flushAlong } from "./frames/flush-along.ts"
import { type Frames, openFrames } from "./frames/open.ts"
import { createControl, passTurn, stop } from "./threads/control.ts"
import { runThreads } from "./threads/threads.ts"

/**
 * Decompresses `source` into `destination`, which must not exist; frames of zeros become holes. On failure
 * (`corrupted` for damaged bytes) or abort the destination is gone; an abort throws the signal's reason.
 */
export async function decompressFile(options: {
  source: string
  destination: string
  threads: number
  signal: AbortSignal
  /** Default true. False: for a file that need not outlive a loss of power, or that the caller syncs. */
  sync?: boolean
  /** Permission bits of the new file, before the process's umask. */
  mode?: number | undefined
  onProgress?: OnProgress | undefined
}): Promise<{ uncompressedBytes: number }> {
  const { sync = true } = options
  options.signal.throwIfAborted()
  try {
    await using source = await openFrames(options.source)
    const { frames } = source
    const { destination: path, mode } = options
    return await writeNewFile({ path, mode, sync }, async (destination) => {
      await destination.truncate(frames.uncompressedBytes)
      const control = createControl()
      const task = { kind: "decode-to-file", control, frames, destinationFd: destination.fd } as const
      const threads = threadsFor(task, options.threads, batchCount(frames))
      const run = {
        control,
        signal: options.signal,
        onFramesDone: bytesReporter(options.onProgress, frames.uncompressedBytes),
      }
      await (sync ? flushAlong(destination, runThreads(threads, run)) : runThreads(threads, run))
      return { uncompressedBytes: frames.uncompressedBytes }
    })
  } catch (thrown) {
    throw fileError(thrown)
  }
}

/**
 * The content in order, in pieces of about 2 MiB that belong to the reader. Threads run at most
 * `batchesAheadPerThread` pieces each ahead of it. A piece comes only after all of it was checked: throws
 * `corrupted` before anything of a bad frame is yielded.
 */
export async function* decompressFrames(options: {
  path: string
  threads: number
  signal: AbortSignal
}): AsyncGenerator<Uint8Array, void, undefined> {
  options.signal.throwIfAborted()
  try {
    await using source = await openFrames(options.path)
    yield* readInOrder(source.frames, options)
  } catch (thrown) {
    throw fileError(thrown)
  }
}

/** Enough that a thread does not wait for a reader that takes one piece at a time. */
const batchesAheadPerThread = 3

async function* readInOrder(
  frames: Frames,
  { threads, signal }: { threads: number; signal: AbortSignal },
): AsyncGenerator<Uint8Array, void, undefined> {
  const count = batchCount(frames)
  const control = createControl()
  const tasks = threadsFor({ kind: "decode-to-messages", control, frames } as const, threads, count)
  const batchesAhead = batchesAheadPerThread * tasks.length
  const arrived = new Map<number, ArrayBuffer | undefined>()
  let news = Promise.withResolvers<void>()
  const run = runThreads(
    tasks.map((task) => ({ ...task, batchesAhead })),
    {
      control,
      signal,
      onBatch(batch, content) {
        arrived.set(batch, content)
        news.resolve()
      },
    },
  )
  try {
    for (let batch = 0; batch < count; batch++) {
      signal.throwIfAborted()
      while (!arrived.has(batch)) {
        await Promise.race([news.promise, run])
        news = Promise.withResolvers()
      }
      const content = arrived.get(batch)
      arrived.delete(batch)
      passTurn(control)
      yield new Uint8Array(content ?? new ArrayBuffer(batchContentBytes(frames, batch)))
    }
    await run
  } finally {
    stop(control)
    // The failure was thrown above, or the reader has left.
    await run.catch(() => undefined)
  }
}
