import { decompressFrames } from "../decompress.ts"
import { type CompressedSource, isCorrupted, openForeign, tableFits } from "../foreign/source.ts"
import { fileError } from "./files.ts"
import { openSeekable } from "./seekable.ts"

interface Range {
  /** Default 0. */
  readonly offset?: number | undefined
  /** Default: all that follows. */
  readonly length?: number | undefined
}

interface Reading extends Range {
  readonly threads: number
  readonly signal: AbortSignal
}

/**
 * The content, or a range of it, in order, in pieces that belong to the reader: of any zstd or LZ4 file, or a
 * pipe with one. A seek table that fits is used; without one all before the range is decoded too. Throws
 * `corrupted` before anything of a bad frame is yielded, and `not_supported`. Without a table, the start of a
 * bad frame of more than 2 MiB may be yielded.
 */
export async function* anyContent(
  source: CompressedSource,
  { offset = 0, length = Infinity, ...reading }: Reading,
): AsyncGenerator<Uint8Array, void, undefined> {
  let yielded = 0
  let damage: unknown
  try {
    if (typeof source === "string" && (await tableFits(source))) {
      for await (const piece of contentByTable(source, { offset, length, ...reading })) {
        yield piece
        yielded += piece.length
      }
      return
    }
  } catch (thrown) {
    if (!isCorrupted(thrown)) throw fileError(thrown)
    damage = thrown
  }
  try {
    yield* streamed(source, { offset: offset + yielded, length: length - yielded, signal: reading.signal })
  } catch (thrown) {
    throw damage !== undefined && isCorrupted(thrown) ? damage : fileError(thrown)
  }
}

const pieceBytes = 2 * 1024 ** 2

async function* contentByTable(
  path: string,
  { offset, length, threads, signal }: Required<Reading> & { offset: number; length: number },
): AsyncGenerator<Uint8Array> {
  if (offset === 0 && length === Infinity) return yield* decompressFrames({ path, threads, signal })
  await using file = await openSeekable(path)
  const end = Math.min(offset + length, file.uncompressedBytes)
  for (let at = offset; at < end; at += pieceBytes) {
    signal.throwIfAborted()
    yield file.read(at, Math.min(pieceBytes, end - at))
  }
}

async function* streamed(
  source: CompressedSource,
  { offset, length, signal }: { offset: number; length: number; signal: AbortSignal },
): AsyncGenerator<Uint8Array> {
  await using foreign = await openForeign(source)
  const end = offset + length
  let position = 0
  if (end <= offset) return
  for await (const piece of foreign.content) {
    signal.throwIfAborted()
    const part = piece.subarray(Math.max(0, offset - position), Math.max(0, end - position))
    position += piece.length
    if (part.length > 0) yield Buffer.from(part)
    if (position >= end) return
  }
}
