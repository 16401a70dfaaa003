import koffi from "koffi"
import { compressFrameSync, decompressFrameSync } from "lz4-napi"
import type { FrameCodec } from "../frames/frame-codec.ts"
import { lz4ContentMax } from "./blocks.ts"

/** LZ4F_VERSION of lz4frame.h, for LZ4F_createDecompressionContext. */
const frameApiVersion = 100
const blockSize256KiB = 5
const independentBlocks = 1

/** The reference library, levels 0-9. Undefined where liblz4.so.1 cannot be loaded. */
export function liblz4Codec(): FrameCodec | undefined {
  const library = loadLiblz4()
  if (!library) return undefined
  const { isError, errorName } = library
  const check = (result: number | bigint): number => {
    if (isError(result)) throw new Error(errorName(result))
    return Number(result)
  }
  let context = decompressionContext(library)
  const produced = new BigUint64Array(1)
  const consumed = new BigUint64Array(1)
  const renewContext = (): void => {
    library.freeContext(context)
    context = decompressionContext(library)
  }
  return {
    name: `liblz4 ${library.version()} through koffi`,
    levelMax: 9,
    compressBound,
    compressFrame: (source, destination, level) =>
      check(
        library.compressFrame(
          destination,
          destination.length,
          source,
          source.length,
          preferences(source.length, level),
        ),
      ),
    decompressFrame(source, destination) {
      produced[0] = BigInt(destination.length)
      consumed[0] = BigInt(source.length)
      const hint = library.decompress(context, destination, produced, source, consumed, null)
      // 0 means that the frame, its checksum included, is complete. Anything else leaves state behind, of
      // which LZ4F_resetDecompressionContext keeps the content size that was left (liblz4 1.9.4).
      if (isError(hint) || Number(hint) !== 0) renewContext()
      if (check(hint) !== 0 || Number(consumed[0]) !== source.length) {
        throw new Error("the bytes are not exactly one LZ4 frame")
      }
      return Number(produced[0])
    },
  }
}

/** Any LZ4 frames, one after the other, in pieces of any size; skippable frames give nothing. */
interface Lz4FrameStream extends Disposable {
  /** Throws the library's own error for bad bytes. */
  decode(input: Uint8Array, output: Uint8Array): { consumed: number; produced: number; frameEnded: boolean }
}

/** Undefined where liblz4.so.1 cannot be loaded. */
export function liblz4FrameStream(): Lz4FrameStream | undefined {
  const library = loadLiblz4()
  if (!library) return undefined
  const context = decompressionContext(library)
  const produced = new BigUint64Array(1)
  const consumed = new BigUint64Array(1)
  return {
    decode(input, output) {
      produced[0] = BigInt(output.length)
      consumed[0] = BigInt(input.length)
      const hint = library.decompress(context, output, produced, input, consumed, null)
      if (library.isError(hint)) throw new Error(library.errorName(hint))
      return {
        consumed: Number(consumed[0]),
        produced: Number(produced[0]),
        frameEnded: Number(hint) === 0,
      }
    },
    [Symbol.dispose]: () => void library.freeContext(context),
  }
}

/** lz4_flex: one level, standard frames; it allocates each result. */
export function lz4NapiCodec(): FrameCodec {
  return {
    name: "lz4-napi",
    // The reference library's levels 0 to 2 are all its fast compressor.
    levelMax: 2,
    compressBound,
    compressFrame(source, destination) {
      const frame = compressFrameSync(Buffer.from(source.buffer, source.byteOffset, source.length), {
        contentChecksum: true,
      })
      destination.set(frame)
      return frame.length
    },
    decompressFrame(source, destination) {
      // The binding allocates whatever the frame expands to, up to 255 times its length.
      const { contentMax, blockMax } = lz4ContentMax(source)
      if (contentMax >= destination.length + blockMax)
        throw new Error("its blocks may hold more than its content")
      const content = decompressFrameSync(Buffer.from(source.buffer, source.byteOffset, source.length))
      destination.set(content)
      return content.length
    },
  }
}

/**
 * Stored blocks of at least 64 KiB with a length and possibly a checksum each, around them header and
 * trailer.
 */
function compressBound(sourceBytes: number): number {
  return sourceBytes + 8 * Math.ceil(sourceBytes / 65_536) + 1024
}

type Size = number | bigint

interface Liblz4 {
  version: () => string
  compressFrame: (
    to: Uint8Array,
    toBytes: number,
    from: Uint8Array,
    fromBytes: number,
    how: Uint8Array,
  ) => Size
  decompress: (
    context: unknown,
    to: Uint8Array,
    toBytes: BigUint64Array,
    from: Uint8Array,
    fromBytes: BigUint64Array,
    how: null,
  ) => Size
  createContext: (context: unknown[], version: number) => Size
  freeContext: (context: unknown) => Size
  isError: (result: Size) => number
  errorName: (result: Size) => string
}

let loaded: { library: Liblz4 | undefined } | undefined

function loadLiblz4(): Liblz4 | undefined {
  loaded ??= { library: bindLiblz4() }
  return loaded.library
}

function bindLiblz4(): Liblz4 | undefined {
  try {
    const lz4 = koffi.load("liblz4.so.1")
    return {
      version: lz4.func("const char *LZ4_versionString()"),
      compressFrame: lz4.func("size_t LZ4F_compressFrame(void *, size_t, void *, size_t, void *)"),
      decompress: lz4.func("size_t LZ4F_decompress(void *, void *, void *, void *, void *, void *)"),
      createContext: lz4.func("size_t LZ4F_createDecompressionContext(_Out_ void **, uint)"),
      freeContext: lz4.func("size_t LZ4F_freeDecompressionContext(void *)"),
      isError: lz4.func("uint LZ4F_isError(size_t)"),
      errorName: lz4.func("const char *LZ4F_getErrorName(size_t)"),
    }
  } catch {
    // The machine has no liblz4.so.1 (or another system's name for it): lz4-napi takes its place.
    return undefined
  }
}

function decompressionContext(library: Liblz4): unknown {
  const context: unknown[] = [null]
  const result = library.createContext(context, frameApiVersion)
  if (library.isError(result)) throw new Error(library.errorName(result))
  return context[0]
}

/**
 * LZ4F_preferences_t of lz4frame.h: blockSizeID, blockMode, contentChecksumFlag, …, contentSize at 16, level
 * at 32.
 */
function preferences(contentBytes: number, level: number): Uint8Array {
  const bytes = new Uint8Array(56)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, blockSize256KiB, true)
  view.setUint32(4, independentBlocks, true)
  view.setUint32(8, 1, true)
  view.setBigUint64(16, BigInt(contentBytes), true)
  view.setInt32(32, level, true)
  return bytes
}
