import { Readable } from "node:stream"
import { createZstdDecompress } from "node:zlib"
import { StillframeError } from "@stillframe/domain/errors"
import type { FileReader } from "./file-reader.ts"
import { isSkippable, zstdMagic } from "./frame-magic.ts"
import { corrupted } from "./seek-table.ts"

/** The content of any zstd frames, in pieces, with the memory of one window. Throws `corrupted` and `not_supported`. */
export async function* zstdContent(reader: FileReader): AsyncGenerator<Buffer, void, undefined> {
  const decompressor = createZstdDecompress({ chunkSize: contentPieceBytes })
  const input = Readable.from(zstdBlocks(reader), { objectMode: false })
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
const blockBytesMax = 128 * 1024

/**
 * The file in pieces of one block each, without its skippable frames. No piece reaches into the next frame: node:zlib
 * drops what follows the end of a frame in the piece that it is given.
 */
async function* zstdBlocks(reader: FileReader): AsyncGenerator<Buffer, void, undefined> {
  for (let start; (start = await reader.some(1)).length > 0;) {
    const magic = Buffer.concat([start, await reader.exactly(3)])
    const number = magic.readUInt32LE(0)
    if (isSkippable(number)) await reader.skip((await reader.exactly(4)).readUInt32LE(0))
    else if (number === zstdMagic) yield* frameBlocks(reader, magic)
    else throw corrupted("something follows a frame that is no frame")
  }
}

/** RFC 8878 §3.1.1: a header of 2 to 14 bytes, blocks until one says that it is the last, perhaps a checksum. */
async function* frameBlocks(reader: FileReader, magic: Buffer): AsyncGenerator<Buffer, void, undefined> {
  const descriptor = await reader.exactly(1)
  const flags = descriptor.readUInt8(0)
  const before = [magic, descriptor, await reader.exactly(restOfHeaderBytes(flags))]
  for (let last = false; !last;) {
    const header = await reader.exactly(3)
    const word = header.readUIntLE(0, 3)
    const kind = (word >> 1) & 3
    const size = word >> 3
    if (kind === 3 || size > blockBytesMax) throw corrupted("a block has no valid header")
    last = (word & 1) === 1
    const block = await reader.exactly(kind === 1 ? 1 : size)
    const checksum = await reader.exactly(last && flags & 4 ? 4 : 0)
    yield Buffer.concat([...before.splice(0), header, block, checksum])
  }
}

function restOfHeaderBytes(flags: number): number {
  const singleSegment = (flags >> 5) & 1
  const contentSize = [singleSegment, 2, 4, 8][flags >> 6] ?? 0
  const dictionaryId = [0, 1, 2, 4][flags & 3] ?? 0
  return (singleSegment ? 0 : 1) + dictionaryId + contentSize
}

function zstdError(thrown: unknown): unknown {
  const { code = "", message } = thrown as NodeJS.ErrnoException
  if (/windowTooLarge|dictionary/i.test(code)) {
    return new StillframeError(
      "not_supported",
      `the file needs a larger window or a dictionary (${message}); decompress it with the zstd command`,
      { cause: thrown },
    )
  }
  if (!/^Z_|^ZSTD_/.test(code)) return thrown
  return corrupted(`a frame does not decompress (${message})`, { cause: thrown })
}
