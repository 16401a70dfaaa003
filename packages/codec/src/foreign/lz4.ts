import type { FileReader } from "../frames/file-reader.ts"
import { corrupted, notSupported } from "../frames/seek-table.ts"
import { liblz4FrameStream } from "../lz4/codec.ts"

type FrameStream = NonNullable<ReturnType<typeof liblz4FrameStream>>

/** A block has at most 4 MiB; less room for it only means more calls. */
const outputBytes = 1024 * 1024
const contentChecksumFlag = 0x04
const dictionaryFlag = 0x01

/** The content of a frame up to this size is held until the checksum behind it was compared. */
const heldBytesMax = 2 * 1024 * 1024

/** Reads one frame after the other, see `heldFrame`; its memory serves all of them. */
export function lz4FrameReader(
  reader: FileReader,
): (magic: Buffer) => AsyncGenerator<Buffer, number | undefined> {
  let output: Buffer | undefined
  return (magic) => heldFrame(reader, magic, (output ??= Buffer.allocUnsafeSlow(outputBytes)))
}

/**
 * The content of one LZ4 frame, whose `magic` was read, in pieces that are valid until the next. Returns the
 * frame's own checksum, the XXH32 of its content, if it has one. Throws `corrupted`, and `not_supported`
 * without liblz4.
 */
async function* heldFrame(
  reader: FileReader,
  magic: Buffer,
  output: Buffer,
): AsyncGenerator<Buffer, number | undefined> {
  const pieces = decodedPieces(reader, magic, output)
  const held: Buffer[] = []
  let bytes = 0
  try {
    for (;;) {
      const { done, value } = await pieces.next()
      if (done !== true) bytes += value.length
      if (done !== true && bytes <= heldBytesMax) {
        held.push(Buffer.from(value))
        continue
      }
      yield* held.splice(0)
      if (done === true) return value
      yield value
    }
  } finally {
    await pieces.return(undefined)
  }
}

async function* decodedPieces(
  reader: FileReader,
  magic: Buffer,
  output: Buffer,
): AsyncGenerator<Buffer, number | undefined> {
  using stream = liblz4FrameStream()
  if (!stream) throw needsLibrary()
  let last = Buffer.alloc(0)
  let ended = false
  const flags = await reader.exactly(1)
  const hasChecksum = (flags.readUInt8(0) & contentChecksumFlag) !== 0
  for await (const input of frameParts(reader, magic, flags)) {
    last = input
    for (let rest = input, full = false; rest.length > 0 || full;) {
      const { consumed, produced, frameEnded } = decode(stream, rest, output)
      if (produced > 0) yield output.subarray(0, produced)
      rest = rest.subarray(consumed)
      // Full output means that there may be more of it, whether or not input is left.
      full = produced === output.length && !frameEnded
      ended = frameEnded
    }
  }
  if (!ended) throw corrupted("a frame has another length than its blocks")
  return hasChecksum ? last.readUInt32LE(last.length - 4) : undefined
}

/** LZ4 frame format 1.6.1: a header, blocks with their lengths, an end mark and perhaps a checksum. */
async function* frameParts(
  reader: FileReader,
  magic: Buffer,
  flags: Buffer,
): AsyncGenerator<Buffer<ArrayBuffer>> {
  const flag = flags.readUInt8(0)
  if (flag & dictionaryFlag) throw notSupported("a frame needs a dictionary; decompress it with lz4 -D")
  const blocks = await reader.exactly(1)
  yield Buffer.concat([magic, flags, blocks, await reader.exactly(flag & 0x08 ? 9 : 1)])
  const blockBytesMax = 256 << (2 * ((blocks.readUInt8(0) >> 4) & 7))
  const blockChecksumBytes = flag & 0x10 ? 4 : 0
  for (;;) {
    const size = await reader.exactly(4)
    const blockBytes = size.readUInt32LE(0) & 0x7fff_ffff
    if (size.readUInt32LE(0) === 0) {
      return yield Buffer.concat([size, await reader.exactly(flag & contentChecksumFlag ? 4 : 0)])
    }
    if (blockBytes > blockBytesMax) throw corrupted("a block has no valid header")
    yield Buffer.concat([size, await reader.exactly(blockBytes + blockChecksumBytes)])
  }
}

function decode(
  stream: FrameStream,
  input: Uint8Array,
  output: Uint8Array,
): ReturnType<FrameStream["decode"]> {
  try {
    return stream.decode(input, output)
  } catch (thrown) {
    throw corrupted("a frame does not decompress", { cause: thrown })
  }
}

function needsLibrary(): Error {
  return notSupported(
    "LZ4 files of other programs are read by liblz4.so.1, which this machine does not have. " +
      "Install it (Debian, Ubuntu: apt-get install liblz4-1) or decompress the file with the lz4 command",
  )
}
