import { type Algorithm, compressionMistake } from "@stillframe/domain/compression"
import { StillframeError } from "@stillframe/domain/errors"
import { liblz4Codec, lz4NapiCodec } from "./lz4-codec.ts"
import { zlibZstdCodec, zstdNapiCodec } from "./zstd-codec.ts"

/** One algorithm through one binding. Not shared between threads; both calls are synchronous. */
export interface FrameCodec {
  /** Which binding and library, for people: `zstd-napi (zstd 1.5.7)`. */
  name: string
  /** The highest level this binding has. */
  levelMax: number
  /** Bytes that a compressed frame of `sourceBytes` never exceeds. */
  compressBound(sourceBytes: number): number
  /** Writes one frame, checksum of the content in its last four bytes, and returns its length. */
  compressFrame(source: Uint8Array, destination: Uint8Array, level: number): number
  /**
   * Fills the start of `destination` from exactly one whole frame and returns the length. Throws the binding's own
   * error for bad bytes and never writes past `destination`.
   */
  decompressFrame(source: Uint8Array, destination: Uint8Array): number
}

/** The best binding this machine has, the native ones first. Each thread has its own, loaded once. */
export function loadCodec(algorithm: Algorithm): FrameCodec {
  return (loaded[algorithm] ??= load[algorithm]())
}

// Kept, because a library's contexts are memory that no garbage collector frees.
const loaded: Partial<Record<Algorithm, FrameCodec>> = {}
const load: Record<Algorithm, () => FrameCodec> = {
  zstd: () => zstdNapiCodec() ?? zlibZstdCodec(),
  lz4: () => liblz4Codec() ?? lz4NapiCodec(),
}

/** Throws `invalid_request` outside the algorithm's range and `codec_unavailable` above what the loaded binding can do. */
export function assertLevel(
  algorithm: Algorithm,
  level: number,
  codec: FrameCodec = loadCodec(algorithm),
): void {
  const mistake = Number.isInteger(level)
    ? compressionMistake({ enabled: true, algorithm, level })
    : `level must be a whole number, got ${level}`
  if (mistake) throw new StillframeError("invalid_request", mistake)
  if (level <= codec.levelMax) return
  throw new StillframeError(
    "codec_unavailable",
    `${algorithm} level ${level} needs liblz4.so.1, and ${codec.name} ends at level ${codec.levelMax}; ` +
      `install the library (Debian, Ubuntu: apt-get install liblz4-1) or choose a lower level`,
  )
}

/** The binding in use for each algorithm, for logs and `doctor`. */
export function codecsInUse(): Record<Algorithm, string> {
  return { zstd: loadCodec("zstd").name, lz4: loadCodec("lz4").name }
}
