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
   * Fills the start of `destination` from exactly one whole frame and returns the length. Throws the
   * binding's own error for bad bytes and never writes past `destination`.
   */
  decompressFrame(source: Uint8Array, destination: Uint8Array): number
  /** The same for several whole frames, one behind the other. Undefined where the binding takes only one. */
  decompressFrames?(source: Uint8Array, destination: Uint8Array): number
}
