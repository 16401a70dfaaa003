import type { Algorithm } from "@stillframe/domain/compression"
import { StillframeError } from "@stillframe/domain/errors"
import type { FileReader } from "../frames/file-reader.ts"
import {
  isLegacyZstd,
  isSkippable,
  lz4LegacyMagic,
  lz4Magic,
  seekTableMagic,
  zstdMagic,
} from "../frames/magic.ts"
import { corrupted, endsSeekTable, footerBytes, notSupported } from "../frames/seek-table.ts"
import { frameLog, tableBytesMax } from "./frame-log.ts"
import { frameRuns } from "./frame-runs.ts"
import { lz4FrameReader } from "./lz4.ts"
import { zstdFrame } from "./zstd.ts"

/** Facts about a file, as far as it was read. */
export interface Found {
  /** That of the first frame with content; undefined before it. */
  algorithm: Algorithm | undefined
  /** True if a seek table describes the frames right before the end, so that none of them can be missing. */
  endsInTable: boolean
}

/** The end of a file, as far as it is known: the end of a pipe is not. */
interface End {
  readonly hasTable: boolean
  readonly hasChecksums: boolean
}

/**
 * The content of any zstd and LZ4 frames in order, in pieces that are valid until the next, whatever program
 * wrote them, with seek tables or without. A table, wherever it is, must describe the frames before it. One
 * thread and memory of some MiB and of one window. Throws `corrupted` for damage and `not_supported` for
 * anything else that can't be read.
 */
export async function* foreignContent(reader: FileReader, found: Found, end: End): AsyncGenerator<Buffer> {
  const log = frameLog()
  const lz4Frame = lz4FrameReader(reader)
  const runOf = frameRuns((frame) => log.add(frame), { hash: end.hasChecksums })
  for (;;) {
    const run = runOf(await reader.ahead())
    reader.take(run.taken)
    if (run.algorithm !== undefined) {
      found.algorithm ??= run.algorithm
      found.endsInTable = false
    }
    if (run.content.length > 0) yield run.content
    const startsAt = reader.position()
    const magic = await upTo(reader, 4)
    if (magic.length === 0 && startsAt > 0) return
    const kind = magic.length < 4 ? undefined : kindOf(magic.readUInt32LE(0))
    if (kind === undefined) return await assertZeros(reader, { startsAt, magic, found, end })
    if (kind === "skippable") {
      const table = await readSkippable(reader, magic.readUInt32LE(0))
      if (table) log.compare(table)
      else log.add({ ...skipped, compressedBytes: reader.position() - startsAt })
      found.endsInTable ||= table !== undefined
      continue
    }
    found.algorithm ??= kind
    found.endsInTable = false
    let contentBytes = 0
    const frame = kind === "lz4" ? lz4Frame(magic) : zstdFrame(reader, { magic, hash: end.hasChecksums })
    const checksum = yield* counted(frame, (bytes) => (contentBytes += bytes))
    log.add({ compressedBytes: reader.position() - startsAt, contentBytes, checksum, skippable: false })
  }
}

const skipped = { contentBytes: 0, checksum: undefined, skippable: true }

async function* counted<Result>(
  pieces: AsyncGenerator<Buffer, Result>,
  count: (bytes: number) => void,
): AsyncGenerator<Buffer, Result> {
  try {
    for (;;) {
      const { done, value } = await pieces.next()
      if (done === true) return value
      count(value.length)
      yield value
    }
  } finally {
    await pieces.return(undefined as never)
  }
}

function kindOf(magic: number): Algorithm | "skippable" | undefined {
  if (magic === zstdMagic) return "zstd"
  if (magic === lz4Magic) return "lz4"
  if (isSkippable(magic)) return "skippable"
  if (magic === lz4LegacyMagic)
    throw notSupported("it is in LZ4's legacy format (lz4 -l); decompress it with the lz4 command")
  if (isLegacyZstd(magic))
    throw notSupported("a zstd before 0.8 wrote it; decompress it with a zstd that reads old formats")
  return undefined
}

/**
 * The seek table in a skippable frame, without its first eight bytes; undefined for anything else, which is
 * passed over.
 */
async function readSkippable(reader: FileReader, magic: number): Promise<Buffer | undefined> {
  const bytes = (await reader.exactly(4)).readUInt32LE(0)
  if (magic !== seekTableMagic || bytes < footerBytes || bytes > tableBytesMax) {
    await reader.skip(bytes)
    return undefined
  }
  const content = await reader.exactly(bytes)
  return endsSeekTable(content.subarray(-footerBytes)) ? content : undefined
}

/** Devices and some copies pad a file with zeros; anything else behind the last frame is damage. */
async function assertZeros(
  reader: FileReader,
  { startsAt, magic, found, end }: { startsAt: number; magic: Buffer; found: Found; end: End },
): Promise<void> {
  if (found.algorithm === undefined && !found.endsInTable) throw isNoneOfThese(magic, end)
  for (let piece = magic; piece.length > 0; piece = await reader.some(1024 * 1024))
    if (piece.some((byte) => byte !== 0)) throw corrupted("the data after a frame is not a frame")
  if (!found.endsInTable)
    throw notSupported(
      `zeros follow its last frame, so that frames may be missing; if it is whole, cut them off with truncate -s ${startsAt}`,
    )
}

function isNoneOfThese(magic: Buffer, { hasTable }: End): Error {
  if (magic.length === 0) return corrupted("it is empty")
  if (magic.length < 4) return corrupted("it is too short to hold a frame")
  if (hasTable) return corrupted("it starts with neither a zstd nor an LZ4 frame")
  return new StillframeError(
    "not_supported",
    `the file starts with neither a zstd nor an LZ4 frame (${magic.toString("hex")}), ` +
      "so it is of another kind, or damaged; name a compressed file",
  )
}

async function upTo(reader: FileReader, length: number): Promise<Buffer> {
  const pieces = []
  for (let missing = length; missing > 0;) {
    const piece = Buffer.from(await reader.some(missing))
    if (piece.length === 0) break
    pieces.push(piece)
    missing -= piece.length
  }
  return Buffer.concat(pieces)
}
