import { Readable } from "node:stream"
import { createZstdDecompress } from "node:zlib"
import { codecFor, loadCodec } from "../frames/codecs.ts"
import type { FileReader } from "../frames/file-reader.ts"
import { corrupted, notSupported } from "../frames/seek-table.ts"
import { contentSizeBytes, zstdBlockBytesMax, zstdChecksumFlag } from "../zstd/extent.ts"
import { xxh64 } from "../zstd/xxh64.ts"

/**
 * The content of one zstd frame, whose `magic` was read, in pieces that are valid until the next. Returns the
 * low half of the content's XXH64: the frame's own, else computed if `hash` asks for it. Throws `corrupted`
 * and `not_supported`.
 */
export async function* zstdFrame(
  reader: FileReader,
  { magic, hash }: { magic: Buffer; hash: boolean },
): AsyncGenerator<Buffer, number | undefined> {
  const descriptor = await reader.exactly(1)
  const flags = descriptor.readUInt8(0)
  const header = await reader.exactly(restOfHeaderBytes(flags))
  assertNoDictionary(flags, header)
  const hasChecksum = (flags & zstdChecksumFlag) !== 0
  const computed = hash && !hasChecksum ? xxh64() : undefined
  const start = [magic, descriptor, header]
  let last = Buffer.alloc(0)
  const blocks = frameBlocks(reader, hasChecksum, (block) => (last = block))
  for await (const piece of decoded(start, blocks)) {
    computed?.update(piece)
    yield piece
  }
  return hasChecksum ? last.readUInt32LE(last.length - 4) : computed?.low32()
}

/** Frames of up to 2 MiB are decoded with one call; a stream for each costs more than their content. */
const blocksAtOnce = 16

async function* decoded(start: Buffer[], blocks: AsyncGenerator<Buffer>): AsyncGenerator<Buffer> {
  const pieces = [...start]
  while (pieces.length <= start.length + blocksAtOnce) {
    const { done, value } = await blocks.next()
    if (done === true) return yield decodedAtOnce(pieces, pieces.length - start.length)
    pieces.push(value)
  }
  yield* decodedAsStream(pieces, blocks)
}

function decodedAtOnce(pieces: Buffer[], blockCount: number): Buffer {
  const content = Buffer.allocUnsafeSlow(blockCount * zstdBlockBytesMax)
  try {
    const bytes = loadCodec(codecFor("zstd")).decompressFrame(Buffer.concat(pieces), content)
    return content.subarray(0, bytes)
  } catch (thrown) {
    throw corrupted("a frame does not decompress", { cause: thrown })
  }
}

async function* decodedAsStream(start: Buffer[], blocks: AsyncGenerator<Buffer>): AsyncGenerator<Buffer> {
  const decompressor = createZstdDecompress({ chunkSize: contentPieceBytes })
  const input = Readable.from(joined(start, blocks), { objectMode: false })
  input.on("error", (error) => decompressor.destroy(error))
  try {
    for await (const piece of input.pipe(decompressor)) yield piece as Buffer
  } catch (thrown) {
    throw zstdError(thrown)
  } finally {
    input.destroy()
    decompressor.destroy()
  }
}

const contentPieceBytes = 256 * 1024

async function* joined(start: Buffer[], blocks: AsyncGenerator<Buffer>): AsyncGenerator<Buffer> {
  yield* start
  yield* blocks
}

/** RFC 8878 §3.1.1: blocks until one says that it is the last, perhaps a checksum. */
async function* frameBlocks(
  reader: FileReader,
  hasChecksum: boolean,
  onBlock: (block: Buffer<ArrayBuffer>) => void,
): AsyncGenerator<Buffer> {
  for (let last = false; !last;) {
    const header = await reader.exactly(3)
    const word = header.readUIntLE(0, 3)
    const kind = (word >> 1) & 3
    const size = word >> 3
    if (kind === 3 || size > zstdBlockBytesMax) throw corrupted("a block has no valid header")
    last = (word & 1) === 1
    const block = await reader.exactly(kind === 1 ? 1 : size)
    const checksum = await reader.exactly(last && hasChecksum ? 4 : 0)
    const whole = Buffer.concat([header, block, checksum])
    onBlock(whole)
    yield whole
  }
}

/** The window's size, the dictionary's number and the content's size, each if the descriptor says so. */
function restOfHeaderBytes(flags: number): number {
  const singleSegment = (flags >> 5) & 1
  return (singleSegment ? 0 : 1) + dictionaryIdBytes(flags) + contentSizeBytes(flags)
}

function dictionaryIdBytes(flags: number): number {
  return [0, 1, 2, 4][flags & 3] ?? 0
}

function assertNoDictionary(flags: number, header: Buffer): void {
  const bytes = dictionaryIdBytes(flags)
  const dictionary = bytes === 0 ? 0 : header.readUIntLE(flags & 0x20 ? 0 : 1, bytes)
  if (dictionary !== 0)
    throw notSupported(`a frame needs the dictionary ${dictionary}; decompress it with zstd -D`)
}

function zstdError(thrown: unknown): unknown {
  const { code = "" } = thrown as NodeJS.ErrnoException
  if (/windowTooLarge/i.test(code)) {
    return notSupported("a frame needs a window of more than 128 MiB; decompress it with zstd -d --long=31", {
      cause: thrown,
    })
  }
  if (!/^Z_|^ZSTD_/.test(code)) return thrown
  return corrupted("a frame does not decompress", { cause: thrown })
}
