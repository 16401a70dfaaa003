import { createRequire } from "node:module"
import { constants, zstdCompressSync, type ZstdOptions, zstdDecompressSync } from "node:zlib"
import type { FrameCodec } from "../frames/frame-codec.ts"

/**
 * The part of zstd-napi's low-level binding used here: it writes into buffers of ours, its high-level API
 * allocates.
 */
interface ZstdNapi {
  CCtx: new () => {
    setParameter(parameter: number, value: number): void
    compress2(destination: Uint8Array, source: Uint8Array): number
  }
  DCtx: new () => { decompress(destination: Uint8Array, source: Uint8Array): number }
  CParameter: { compressionLevel: number; checksumFlag: number }
  findFrameCompressedSize(frame: Uint8Array): number
  versionString(): string
}

const levelMax = 19

/** Undefined where the optional addon is not installed or does not load. */
export function zstdNapiCodec(): FrameCodec | undefined {
  const binding = loadZstdNapi()
  if (!binding) return undefined
  const compressor = new binding.CCtx()
  compressor.setParameter(binding.CParameter.checksumFlag, 1)
  const decompressor = new binding.DCtx()
  let levelSet: number | undefined
  return {
    name: `zstd-napi (zstd ${binding.versionString()})`,
    levelMax,
    compressBound,
    compressFrame(source, destination, level) {
      if (level !== levelSet) compressor.setParameter(binding.CParameter.compressionLevel, level)
      levelSet = level
      return compressor.compress2(destination, source)
    },
    decompressFrame(source, destination) {
      if (binding.findFrameCompressedSize(source) !== source.length) throw notOneFrame()
      return decompressor.decompress(destination, source)
    },
    decompressFrames: (source, destination) => decompressor.decompress(destination, source),
  }
}

/** Node's built-in zstd: same frames, one more copy and allocation for each. */
export function zlibZstdCodec(): FrameCodec {
  return {
    name: `node:zlib (zstd ${process.versions["zstd"] ?? "of this Node"})`,
    levelMax,
    compressBound,
    compressFrame(source, destination, level) {
      const frame = zstdCompressSync(source, {
        // The default chunk of 16 KiB costs a third of the speed.
        chunkSize: compressBound(source.length),
        params: {
          [constants.ZSTD_c_compressionLevel]: level,
          [constants.ZSTD_c_checksumFlag]: 1,
          [constants.ZSTD_c_contentSizeFlag]: 1,
        },
      })
      destination.set(frame)
      return frame.length
    },
    decompressFrame(source, destination) {
      const { buffer: content, engine } = decompressWithInfo(source, {
        chunkSize: Math.max(destination.length, chunkBytesMin),
        maxOutputLength: Math.max(destination.length, 1),
        info: true,
      })
      if (engine.bytesWritten !== source.length) throw notOneFrame()
      destination.set(content)
      return content.length
    },
  }
}

/**
 * With `info`, Node also returns the engine, which knows how much of the source it took. Node's types omit
 * that.
 */
const decompressWithInfo = zstdDecompressSync as unknown as (
  source: Uint8Array,
  options: ZstdOptions & { info: true },
) => { buffer: Buffer; engine: { bytesWritten: number } }

/** node:zlib refuses smaller chunks. */
const chunkBytesMin = 64

/** ZSTD_COMPRESSBOUND of zstd.h, rounded up, and room for a frame's header and checksum. */
function compressBound(sourceBytes: number): number {
  return sourceBytes + Math.ceil(sourceBytes / 256) + 1024
}

function notOneFrame(): Error {
  return new Error("the bytes are not exactly one zstd frame")
}

function loadZstdNapi(): ZstdNapi | undefined {
  try {
    return createRequire(import.meta.url)("zstd-napi/binding.js") as ZstdNapi
  } catch {
    // An optional dependency: it is not built on machines without a compiler, and node:zlib takes its place.
    return undefined
  }
}
