import { type Algorithm, compressionMistake } from "@stillframe/domain/compression"
import { StillframeError } from "@stillframe/domain/errors"
import { liblz4Codec, lz4NapiCodec } from "../lz4/codec.ts"
import { zlibZstdCodec, zstdNapiCodec } from "../zstd/codec.ts"
import type { FrameCodec } from "./frame-codec.ts"

export type CodecId = "zstd-napi" | "node:zlib" | "liblz4" | "lz4-napi"

/** All that there are, the best first: the native ones. */
export const codecIds: Readonly<Record<Algorithm, readonly CodecId[]>> = {
  zstd: ["zstd-napi", "node:zlib"],
  lz4: ["liblz4", "lz4-napi"],
}

const load: Readonly<Record<CodecId, () => FrameCodec | undefined>> = {
  "zstd-napi": zstdNapiCodec,
  "node:zlib": zlibZstdCodec,
  liblz4: liblz4Codec,
  "lz4-napi": lz4NapiCodec,
}

/** Throws `codec_unavailable` where this machine cannot load it. Each thread has its own, loaded once. */
export function loadCodec(id: CodecId): FrameCodec {
  const codec = loadIfPresent(id)
  if (codec) return codec
  throw new StillframeError("codec_unavailable", `${id} does not load on this machine; install its library`)
}

/** True if this machine can load the codec. */
export function loads(id: CodecId): boolean {
  return loadIfPresent(id) !== undefined
}

// Kept, because a library's contexts are memory that no garbage collector frees.
const loaded: Partial<Record<CodecId, FrameCodec | undefined>> = {}

function loadIfPresent(id: CodecId): FrameCodec | undefined {
  if (!(id in loaded)) loaded[id] = load[id]()
  return loaded[id]
}

/** The codec of this process: the best one that loads, or the one of `chooseCodec`. Threads get its id. */
export function codecFor(algorithm: Algorithm): CodecId {
  return (inUse[algorithm] ??= codecIds[algorithm].find(loads) ?? codecIds[algorithm][0]!)
}

/** Makes this process use another codec for an algorithm from now on, as if the better ones did not load. */
export function chooseCodec(algorithm: Algorithm, id: CodecId): void {
  inUse[algorithm] = id
}

const inUse: Partial<Record<Algorithm, CodecId>> = {}

/**
 * Throws `invalid_request` outside the algorithm's range and `codec_unavailable` above the binding's highest
 * level.
 */
export function assertLevel(
  algorithm: Algorithm,
  level: number,
  codec: FrameCodec = loadCodec(codecFor(algorithm)),
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

/** The binding in use for each algorithm, for people. */
export function codecsInUse(): Record<Algorithm, string> {
  return { zstd: loadCodec(codecFor("zstd")).name, lz4: loadCodec(codecFor("lz4")).name }
}
