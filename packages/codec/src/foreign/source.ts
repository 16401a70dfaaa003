import { StillframeError } from "@stillframe/domain/errors"
import { openRegular } from "@stillframe/storage/open-regular"
import { openDirect } from "../frames/direct.ts"
import { fileReader, streamReader } from "../frames/file-reader.ts"
import { openFrames, readFooter } from "../frames/open.ts"
import { endsSeekTable, hasChecksums } from "../frames/seek-table.ts"
import { type Found, foreignContent } from "./foreign.ts"

/** The path of a regular file, or the bytes of one from a pipe. */
export type CompressedSource = string | AsyncIterable<Buffer>

export interface ForeignSource extends AsyncDisposable {
  /** Pieces that are valid until the next; see `foreignContent`. */
  readonly content: AsyncGenerator<Buffer>
  readonly found: Found
  readonly fromDevice: boolean
}

/** Opens a file of any program, to be read once from its start. */
export async function openForeign(
  source: CompressedSource,
  { fromDevice = false } = {},
): Promise<ForeignSource> {
  const found: Found = { algorithm: undefined, endsInTable: false }
  if (typeof source !== "string") {
    const pieces = source[Symbol.asyncIterator]()
    const content = foreignContent(streamReader(pieces), found, { hasTable: false, hasChecksums: false })
    return {
      content,
      found,
      fromDevice: false,
      [Symbol.asyncDispose]: async () => void (await pieces.return?.()),
    }
  }
  const direct = fromDevice ? await openDirect(source) : undefined
  const handle = direct ?? (await openRegular(source))
  try {
    const fileBytes = (await handle.stat()).size
    const footer = await readFooter(handle, fileBytes)
    const reader = fileReader(handle, fileBytes, { fromDevice: direct !== undefined })
    const end = { hasTable: endsSeekTable(footer), hasChecksums: hasChecksums(footer) }
    return {
      content: foreignContent(reader, found, end),
      found,
      fromDevice: direct !== undefined,
      [Symbol.asyncDispose]: () => handle.close(),
    }
  } catch (thrown) {
    await handle.close()
    throw thrown
  }
}

/**
 * `byTable`, or `byStream` for a file whose seek table is missing or is not of the kind that we read by it.
 * Damage is judged by `byStream`, since the table of another program may say less about its frames than ours
 * does.
 */
export async function byTableOrStream<Result>(
  source: CompressedSource,
  { byTable, byStream }: { byTable: (path: string) => Promise<Result>; byStream: () => Promise<Result> },
): Promise<Result> {
  if (typeof source !== "string" || !(await tableFits(source))) return await byStream()
  try {
    return await byTable(source)
  } catch (thrown) {
    if (!isCorrupted(thrown)) throw thrown
    return await byStream().catch((again: unknown) => {
      // The table tells which frame it is.
      throw isCorrupted(again) ? thrown : again
    })
  }
}

/**
 * True for a file with a seek table that accounts for all of it, in frames of a size that we read at once.
 */
export async function tableFits(source: CompressedSource): Promise<boolean> {
  return (await contentBytesByTable(source)) !== undefined
}

/** The size of the content by such a table; undefined without one. */
export async function contentBytesByTable(source: CompressedSource): Promise<number | undefined> {
  if (typeof source !== "string") return undefined
  try {
    await using opened = await openFrames(source)
    return opened.frames.uncompressedBytes
  } catch (thrown) {
    if (isCorrupted(thrown)) return undefined
    throw thrown
  }
}

export function isCorrupted(thrown: unknown): boolean {
  return thrown instanceof StillframeError && thrown.code === "corrupted"
}
