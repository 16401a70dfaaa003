import { constants, zstdCompressSync } from "node:zlib"
import { codecFor, loadCodec } from "../frames/codecs.ts"
import { xxh64Low32 } from "../zstd/xxh64.ts"

// Files as other programs write them, byte by byte, for tests.

/** A part of a file, with its entry in a seek table if it has one. */
export interface Part {
  readonly bytes: Buffer
  readonly content: Buffer
}

/**
 * A zstd frame; by default without a checksum, as the reference library of the seekable format writes them.
 */
export function zstdPart(content: Buffer, { checksum = false, size = true } = {}): Part {
  const params = {
    [constants.ZSTD_c_checksumFlag]: checksum ? 1 : 0,
    [constants.ZSTD_c_contentSizeFlag]: size ? 1 : 0,
  }
  return { bytes: zstdCompressSync(content, { params }), content }
}

export function lz4Part(content: Buffer): Part {
  const codec = loadCodec(codecFor("lz4"))
  const frame = Buffer.alloc(codec.compressBound(content.length))
  return { bytes: frame.subarray(0, codec.compressFrame(content, frame, 0)), content }
}

/** A frame that says neither its size nor a checksum: blocks of 128 KiB zeros, four bytes each. */
export function zerosPart(blocks: number): Part {
  const block = Buffer.from([2, 0, 16, 0])
  const last = Buffer.from([3, 0, 16, 0])
  const header = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0x38])
  const bytes = Buffer.concat([header, ...Array.from({ length: blocks - 1 }, () => block), last])
  return { bytes, content: Buffer.alloc(blocks * 128 * 1024) }
}

export function skippablePart(bytes: number, kind = 0x50): Part {
  return { bytes: skippable(kind, Buffer.alloc(bytes, "note")), content: Buffer.alloc(0) }
}

/** Several parts in one entry, as pyzstd does in files of very many frames. */
export function mergedPart(...parts: Part[]): Part {
  return {
    bytes: Buffer.concat(parts.map((part) => part.bytes)),
    content: Buffer.concat(parts.map((part) => part.content)),
  }
}

/** The seek table of the parts. */
export function tableOf(parts: readonly Part[], { checksums = false } = {}): Buffer {
  const entries = parts.map(({ bytes, content }) => {
    const words = [bytes.length, content.length, ...(checksums ? [xxh64Low32(content)] : [])]
    return Buffer.from(Uint32Array.from(words).buffer)
  })
  const footer = Buffer.from([0, 0, 0, 0, checksums ? 0x80 : 0, 0xb1, 0xea, 0x92, 0x8f])
  footer.writeUInt32LE(parts.length, 0)
  return skippable(0x5e, Buffer.concat([...entries, footer]))
}

/** The parts and their seek table. */
export function seekableFile(parts: readonly Part[], options?: { checksums: boolean }): Buffer {
  return Buffer.concat([...parts.map(({ bytes }) => bytes), tableOf(parts, options)])
}

function skippable(kind: number, content: Buffer): Buffer {
  const header = Buffer.from([kind, 0x2a, 0x4d, 0x18, 0, 0, 0, 0])
  header.writeUInt32LE(content.length, 4)
  return Buffer.concat([header, content])
}
