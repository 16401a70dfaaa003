/** A zstd frame as its headers describe it (RFC 8878 §3.1.1), without a look at its content. */
export interface ZstdExtent {
  readonly end: number
  /** Undefined where the header does not say it. */
  readonly contentBytes: number | undefined
  /** The most content that its blocks can have. */
  readonly contentBytesMax: number
  /** Its own, from its last four bytes. */
  readonly checksum: number | undefined
}

export const zstdBlockBytesMax = 128 * 1024
export const zstdChecksumFlag = 4

/**
 * The frame whose magic number is at `start`. Undefined unless all of it is in `bytes`, and for a frame that
 * needs a dictionary, has a reserved bit or is no frame.
 */
export function zstdExtent(bytes: Buffer, start: number): ZstdExtent | undefined {
  const flags = bytes[start + 4]
  if (flags === undefined || (flags & (reservedBit | dictionaryBits)) !== 0) return undefined
  const sizeAt = start + 5 + (flags & singleSegment ? 0 : 1)
  const sizeBytes = contentSizeBytes(flags)
  if (sizeAt + sizeBytes > bytes.length) return undefined
  const checksumBytes = flags & zstdChecksumFlag ? 4 : 0
  let at = sizeAt + sizeBytes
  let contentBytesMax = 0
  for (let last = false; !last;) {
    if (at + 3 > bytes.length) return undefined
    const word = bytes.readUIntLE(at, 3)
    const kind = (word >> 1) & 3
    const size = word >> 3
    if (kind === reservedKind || size > zstdBlockBytesMax) return undefined
    contentBytesMax += kind === compressedKind ? zstdBlockBytesMax : size
    at += 3 + (kind === repeatedKind ? 1 : size)
    last = (word & 1) === 1
  }
  const end = at + checksumBytes
  if (end > bytes.length) return undefined
  const contentBytes = sizeBytes === 0 ? undefined : contentSize(bytes, sizeAt, sizeBytes)
  return { end, contentBytes, contentBytesMax, checksum: checksumBytes ? bytes.readUInt32LE(at) : undefined }
}

const dictionaryBits = 0x03
const reservedBit = 0x08
const singleSegment = 0x20
const repeatedKind = 1
const compressedKind = 2
const reservedKind = 3

/** How many bytes the field with the size of the content has. */
export function contentSizeBytes(flags: number): number {
  return [flags & singleSegment ? 1 : 0, 2, 4, 8][flags >> 6] ?? 0
}

function contentSize(bytes: Buffer, at: number, length: number): number {
  if (length === 8) return Number(bytes.readBigUInt64LE(at))
  return bytes.readUIntLE(at, length) + (length === 2 ? 256 : 0)
}
