import type { Algorithm } from "@stillframe/domain/compression"
import { StillframeError } from "@stillframe/domain/errors"
import { openRegular } from "@stillframe/storage/open-regular"
import { assertLevel, codecFor } from "./frames/codecs.ts"
import { fileError, writeFully, writeNewFile } from "./frames/files.ts"
import { flushAlong } from "./frames/flush-along.ts"
import { encodeSeekTable, entryWords, frameCountMax } from "./frames/seek-table.ts"
import { batchFrames, type CompressTask, frameBytes } from "./threads/compress-task.ts"
import { createControl } from "./threads/control.ts"
import { runThreads } from "./threads/threads.ts"

/** Called a few times a second and once at the end, with bytes of uncompressed content. */
export type OnProgress = (doneBytes: number, totalBytes: number) => void

interface Compressing {
  readonly source: string
  readonly algorithm: Algorithm
  readonly level: number
  readonly threads: number
  readonly signal: AbortSignal
  readonly onProgress?: OnProgress | undefined
}

interface Sizes {
  uncompressedBytes: number
  compressedBytes: number
}

/**
 * Compresses `source` into `destination`, which must not exist, as independent frames and a seek table. All
 * reading, compressing and writing is done by `threads` threads with about 12 MiB each. On failure or abort
 * the destination is gone; an abort throws the signal's reason.
 */
export async function compressFile(
  options: Compressing & {
    readonly destination: string
    /** Default true. False: the caller syncs the file, for example while it is read back. */
    readonly sync?: boolean
    /** Permission bits of the new file, before the process's umask. */
    readonly mode?: number | undefined
  },
): Promise<Sizes> {
  const { destination: path, mode, sync = true } = options
  return withSource(options, (source) =>
    writeNewFile({ path, mode, sync }, (destination) =>
      compressInto(source, options, {
        fd: destination.fd,
        inOrder: false,
        during: (work) => flushAlong(destination, work),
      }),
    ),
  )
}

/**
 * Compresses into `fd`, which takes bytes only in order: a pipe or a character device that is open for
 * writing.
 */
export async function compressToPipe(options: Compressing & { readonly fd: number }): Promise<Sizes> {
  return withSource(options, (source) =>
    compressInto(source, options, { fd: options.fd, inOrder: true, during: (work) => work }),
  )
}

interface Source {
  readonly fd: number
  readonly bytes: number
}

async function withSource(
  options: Compressing,
  compress: (source: Source) => Promise<Sizes>,
): Promise<Sizes> {
  options.signal.throwIfAborted()
  assertLevel(options.algorithm, options.level)
  try {
    await using file = await openRegular(options.source)
    const bytes = (await file.stat()).size
    if (bytes > frameCountMax * frameBytes) throw tooLarge(options.source)
    return await compress({ fd: file.fd, bytes })
  } catch (thrown) {
    throw fileError(thrown)
  }
}

interface Destination {
  readonly fd: number
  readonly inOrder: boolean
  readonly during: (work: Promise<unknown>) => Promise<unknown>
}

async function compressInto(
  source: Source,
  options: Compressing,
  { fd, inOrder, during }: Destination,
): Promise<Sizes> {
  const frameCount = Math.ceil(source.bytes / frameBytes)
  const task: CompressTask = {
    kind: "compress",
    control: createControl(),
    sourceFd: source.fd,
    destinationFd: fd,
    inOrder,
    sourceBytes: source.bytes,
    codec: codecFor(options.algorithm),
    level: options.level,
    entries: new Uint32Array(new SharedArrayBuffer(4 * entryWords * frameCount)),
  }
  const threads = threadsFor(task, options.threads, Math.ceil(frameCount / batchFrames))
  const run = {
    control: task.control,
    signal: options.signal,
    onFramesDone: bytesReporter(options.onProgress, source.bytes),
  }
  await during(runThreads(threads, run))
  const table = encodeSeekTable(task.entries)
  const framesBytes = Number(task.control.offset[0])
  writeFully(fd, table, inOrder ? null : framesBytes)
  return { uncompressedBytes: source.bytes, compressedBytes: framesBytes + table.length }
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
