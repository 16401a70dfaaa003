import { StillframeError } from "@stillframe/domain/errors"
import { counted } from "@stillframe/domain/text/counted"
import { seekTableMagic } from "./magic.ts"

/**
 * The seek table of the zstd seekable format 0.1.0 (zstd's
 * contrib/seekable_format/zstd_seekable_compression_format.md): a skippable frame at the end of the file with
 * the sizes of every frame, all little-endian:
 *
 *     magic u32 | size u32 | (compressed u32, uncompressed u32, [checksum u32]) per frame | count u32,
 *     descriptor u8, magic u32
 *
 * LZ4 files carry the same table; its magic number lies in the range that LZ4's frame format skips too. The
 * checksum is the low half of the XXH64 of the frame's content, and of its XXH32 for LZ4. Our frames end in
 * the same four bytes; other writers' frames may have no checksum of their own. With it, a frame that is
 * intact but in another's place is noticed.
 */
export interface SeekTable {
  frameCount: number
  /** Content of the largest frame. */
  frameBytesLargest: number
  /** The start of each frame in the file, and last the end of the last frame. */
  offsets: Float64Array<SharedArrayBuffer>
  /** The start of each frame's content, and last the size of all content. */
  positions: Float64Array<SharedArrayBuffer>
  /** Undefined in files of other programs that leave them out. */
  checksums: Uint32Array<SharedArrayBuffer> | undefined
}

/** Words of one entry in memory: compressed bytes, uncompressed bytes, checksum. */
export const entryWords = 3

/** 1 TiB at 256 KiB a frame; bounds the memory that a table takes. */
export const frameCountMax = 2 ** 22

/** The largest content of a frame that is read; bounds the memory of a reader. Ours have 256 KiB. */
const frameBytesMax = 8 * 2 ** 20

export const footerBytes = 9

const seekableMagic = 0x8f92eab1
const headerBytes = 8
const entryBytes = 4 * entryWords
const checksumFlag = 0x80
const reservedBits = 0x7c

/** `entries` holds `entryWords` words for each frame. */
export function encodeSeekTable(entries: Uint32Array): Uint8Array {
  const bytes = new Uint8Array(headerBytes + entries.length * 4 + footerBytes)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, seekTableMagic, true)
  view.setUint32(4, bytes.length - headerBytes, true)
  entries.forEach((word, index) => view.setUint32(headerBytes + 4 * index, word, true))
  const footer = bytes.length - footerBytes
  view.setUint32(footer, entries.length / entryWords, true)
  view.setUint8(footer + 4, checksumFlag)
  view.setUint32(footer + 5, seekableMagic, true)
  return bytes
}

/**
 * The length of the whole table, from the last `footerBytes` of a file of `fileBytes`. Throws `corrupted`.
 */
export function seekTableBytes(footer: Uint8Array, fileBytes: number): number {
  const { frameCount, entry } = parseFooter(footer)
  const bytes = headerBytes + frameCount * entry + footerBytes
  if (bytes > fileBytes) throw corrupted("its seek table claims to be larger than the file")
  return bytes
}

/**
 * Reads a whole table, which must account for every byte of the `framesBytes` before it. Throws `corrupted`.
 */
export function parseSeekTable(table: Uint8Array, framesBytes: number): SeekTable {
  const view = new DataView(table.buffer, table.byteOffset, table.length)
  if (table.length < headerBytes + footerBytes) throw corrupted("its seek table is cut off")
  const { frameCount, entry } = parseFooter(table.subarray(-footerBytes))
  if (table.length !== headerBytes + frameCount * entry + footerBytes) {
    throw corrupted("its seek table has another length than its footer says")
  }
  if (view.getUint32(0, true) !== seekTableMagic || view.getUint32(4, true) !== table.length - headerBytes) {
    throw corrupted("its seek table does not start where its footer says")
  }
  const offsets = new Float64Array(new SharedArrayBuffer(8 * (frameCount + 1)))
  const positions = new Float64Array(new SharedArrayBuffer(8 * (frameCount + 1)))
  const checksums = entry === entryBytes ? new Uint32Array(new SharedArrayBuffer(4 * frameCount)) : undefined
  let frameBytesLargest = 0
  for (let frame = 0; frame < frameCount; frame++) {
    const at = headerBytes + frame * entry
    const compressed = view.getUint32(at, true)
    const uncompressed = view.getUint32(at + 4, true)
    checkSizes(frame, compressed, uncompressed)
    frameBytesLargest = Math.max(frameBytesLargest, uncompressed)
    offsets[frame + 1] = (offsets[frame] ?? 0) + compressed
    positions[frame + 1] = (positions[frame] ?? 0) + uncompressed
    if (checksums) checksums[frame] = view.getUint32(at + 8, true)
  }
  if (offsets[frameCount] !== framesBytes)
    throw corrupted("the frames in its seek table do not fill the file")
  return { frameCount, frameBytesLargest, offsets, positions, checksums }
}

/** True if the last `footerBytes` of a file are the footer of a seek table. */
export function endsSeekTable(footer: Uint8Array): boolean {
  const view = new DataView(footer.buffer, footer.byteOffset, footer.length)
  return footer.length === footerBytes && view.getUint32(5, true) === seekableMagic
}

/** True if the table that this footer ends has checksums. */
export function hasChecksums(footer: Uint8Array): boolean {
  return endsSeekTable(footer) && ((footer[4] ?? 0) & checksumFlag) !== 0
}

/** True for a footer that a later version of the format may have written. */
export function isUnknownVersion(footer: Uint8Array): boolean {
  return endsSeekTable(footer) && ((footer[4] ?? 0) & reservedBits) !== 0
}

/** Throws `corrupted` for a footer whose table can't be read. */
export function parseFooter(footer: Uint8Array): { frameCount: number; entry: number } {
  const view = new DataView(footer.buffer, footer.byteOffset, footer.length)
  if (!endsSeekTable(footer)) {
    throw corrupted("it does not end in a seek table (if another program wrote it, decompress it first)")
  }
  if (isUnknownVersion(footer)) throw corrupted("its seek table is of an unknown version")
  const frameCount = view.getUint32(0, true)
  if (frameCount > frameCountMax)
    throw corrupted(`it claims ${frameCount} frames, more than ${frameCountMax}`)
  return { frameCount, entry: hasChecksums(footer) ? entryBytes : entryBytes - 4 }
}

/**
 * A zstd block gives at most 128 KiB and takes at least 4 bytes (RFC 8878 §3.1.1.2); LZ4 gives 255 times its
 * bytes.
 */
const expansionMax = (128 * 1024) / 4

function checkSizes(frame: number, compressed: number, uncompressed: number): void {
  if (uncompressed > frameBytesMax)
    throw corrupted(`frame ${frame} claims more than ${frameBytesMax} bytes of content`)
  // No codec here makes its input longer than this, so a longer frame is a lie that would only cost memory.
  const compressedMax = uncompressed + uncompressed / 128 + 1024
  if (compressed === 0 || compressed > compressedMax || uncompressed > compressed * expansionMax) {
    throw corrupted(
      `frame ${frame} claims ${counted(compressed, "byte")} for ${counted(uncompressed, "byte")} of content`,
    )
  }
}

/** For a compressed file that may be whole and is not read here; `why` ends in a remedy. */
export function notSupported(why: string, options?: ErrorOptions): StillframeError {
  return new StillframeError("not_supported", `the compressed file is not supported: ${why}`, options)
}

/** For a compressed file whose bytes cannot be right. */
export function corrupted(what: string, options?: ErrorOptions): StillframeError {
  return new StillframeError(
    "corrupted",
    `the compressed file is damaged: ${what}; keep it for inspection and use another copy`,
    options,
  )
}
