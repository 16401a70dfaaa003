import { xxh32 } from "./xxh32.ts"

/** A frame that was decoded. */
interface Lz4SmallFrame {
  /** The ends of the block in the source and of its content in the destination. */
  readonly end: number
  readonly contentEnd: number
  /** The XXH32 of its content, if it has one. */
  readonly checksum: number | undefined
}

/** A call of liblz4 takes longer than JavaScript takes for frames up to about this size. */
const smallBytesMax = 16 * 1024

/**
 * Decodes the LZ4 frame whose magic number is at `start` (LZ4 frame format 1.6.1) into `destination` from
 * `to` on, with all its checksums. Undefined where `source` does not hold all of it, it is not small,
 * `destination` has no room, or anything of it is unusual or bad, so that the library has to judge it;
 * `destination` may then have been written from `to` on.
 */
export function decodeLz4Small(
  source: Buffer,
  start: number,
  destination: Buffer,
  to: number,
): Lz4SmallFrame | undefined {
  const flags = source[start + 4] ?? 0
  const sizes = source[start + 5] ?? 0
  const code = sizes >> 4
  if ((flags & unusualFlags) !== version || (sizes & 0x8f) !== 0 || code < 4) return undefined
  const headerEnd = start + 6 + (flags & contentSizeFlag ? 8 : 0)
  const blockMax = 256 << (2 * code)
  const limit = Math.min(source.length, start + smallBytesMax)
  // The header's checksum and at least an end mark.
  if (headerEnd + 5 > limit) return undefined
  if (((xxh32(source, start + 4, headerEnd) >>> 8) & 0xff) !== source[headerEnd]) return undefined
  const blocks = decodeBlocks(source, headerEnd + 1, limit, { flags, blockMax, destination, to })
  if (blocks === undefined) return undefined
  const { contentEnd } = blocks
  if (flags & contentSizeFlag && source.readBigUInt64LE(start + 6) !== BigInt(contentEnd - to))
    return undefined
  if (!(flags & contentChecksumFlag)) return { ...blocks, checksum: undefined }
  if (blocks.end + 4 > limit) return undefined
  const checksum = source.readUInt32LE(blocks.end)
  if (checksum !== xxh32(destination, to, contentEnd)) return undefined
  return { end: blocks.end + 4, contentEnd, checksum }
}

const version = 0x40
/** The version, the reserved bit and that of a dictionary. */
const unusualFlags = 0xc3
const independentFlag = 0x20
const blockChecksumFlag = 0x10
const contentSizeFlag = 0x08
const contentChecksumFlag = 0x04

interface Target {
  readonly flags: number
  readonly blockMax: number
  readonly destination: Buffer
  readonly to: number
}

/** Ends behind the end mark. */
function decodeBlocks(
  source: Buffer,
  start: number,
  limit: number,
  { flags, blockMax, destination, to }: Target,
): { end: number; contentEnd: number } | undefined {
  const checksumBytes = flags & blockChecksumFlag ? 4 : 0
  let at = start
  let contentEnd = to
  for (;;) {
    if (at + 4 > limit) return undefined
    const word = source.readUInt32LE(at)
    at += 4
    if (word === 0) return { end: at, contentEnd }
    const size = word & 0x7fff_ffff
    const end = at + size
    if (size > blockMax || end + checksumBytes > limit) return undefined
    if (checksumBytes && source.readUInt32LE(end) !== xxh32(source, at, end)) return undefined
    const room = Math.min(destination.length, contentEnd + blockMax)
    const block = { at, end, stored: size !== word }
    const from = flags & independentFlag ? contentEnd : to
    contentEnd = decodeBlock(source, block, destination, { from, to: contentEnd, room })
    if (contentEnd < 0) return undefined
    at = end + checksumBytes
  }
}

const lastLiterals = 5
/** A distance, a token and the last literals. */
const inputLeftMin = 2 + 1 + lastLiterals
const roomLeftMin = 12

/**
 * Matches begin at `from` at the earliest. Returns where the content ends, or -1 for a bad block or one that
 * needs more room.
 */
function decodeBlock(
  source: Buffer,
  { at: start, end, stored }: { at: number; end: number; stored: boolean },
  destination: Buffer,
  { from, to: place, room }: { from: number; to: number; room: number },
): number {
  let at = start
  let to = place
  if (stored) return end - at > room - to ? -1 : to + source.copy(destination, to, at, end)
  for (;;) {
    const token = source[at++]!
    let length = token >> 4
    if (length === 15) {
      let more
      do length += more = at < end ? source[at++]! : 0
      while (more === 255)
    }
    if (length > end - at || length > room - to) return -1
    for (let index = 0; index < length; index++) destination[to + index] = source[at + index]!
    at += length
    to += length
    if (at === end) return to
    // The format's rules for the end of a block, as strict as the library.
    if (end - at < inputLeftMin || room - to < roomLeftMin) return -1
    const distance = source[at]! | (source[at + 1]! << 8)
    at += 2
    length = (token & 15) + 4
    if (length === 19) {
      let more
      do length += more = at < end ? source[at++]! : 0
      while (more === 255)
    }
    if (at >= end || distance === 0 || distance > to - from || length > room - lastLiterals - to) return -1
    for (const copied = to + length; to < copied; to++) destination[to] = destination[to - distance]!
  }
}
