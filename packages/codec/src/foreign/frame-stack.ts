/** A frame as it was found in a file. */
export interface FoundFrame {
  readonly compressedBytes: number
  /** 0 for a skippable frame. */
  readonly contentBytes: number
  /** In the form of the seek table; undefined where it is not known. */
  readonly checksum: number | undefined
  readonly skippable: boolean
}

/** Frames, of which the last one comes back first. 21 bytes each: a file may have millions. */
export interface FrameStack {
  push(frame: FoundFrame): void
  pop(): FoundFrame | undefined
  /** The one that `pop` would remove. */
  last(): FoundFrame | undefined
  size(): number
}

const chunkFrames = 16_384
const isSkippable = 1
const hasChecksum = 2

export function frameStack(): FrameStack {
  const chunks: Chunk[] = []
  let size = 0
  const last = (): FoundFrame | undefined => {
    const chunk = chunks[Math.floor((size - 1) / chunkFrames)]
    return chunk && frameIn(chunk, (size - 1) % chunkFrames)
  }
  return {
    size: () => size,
    last,
    push({ compressedBytes, contentBytes, checksum, skippable }) {
      const { bytes, checksums, flags } = (chunks[Math.floor(size / chunkFrames)] ??= emptyChunk())
      const at = size++ % chunkFrames
      bytes[2 * at] = compressedBytes
      bytes[2 * at + 1] = contentBytes
      checksums[at] = checksum ?? 0
      flags[at] = (skippable ? isSkippable : 0) | (checksum === undefined ? 0 : hasChecksum)
    },
    pop() {
      const frame = last()
      if (frame !== undefined) size--
      return frame
    },
  }
}

interface Chunk {
  /** Compressed and content bytes of each frame in turn. */
  readonly bytes: Float64Array
  readonly checksums: Uint32Array
  readonly flags: Uint8Array
}

function emptyChunk(): Chunk {
  return {
    bytes: new Float64Array(2 * chunkFrames),
    checksums: new Uint32Array(chunkFrames),
    flags: new Uint8Array(chunkFrames),
  }
}

function frameIn({ bytes, checksums, flags }: Chunk, at: number): FoundFrame {
  const flag = flags[at] ?? 0
  return {
    compressedBytes: bytes[2 * at] ?? 0,
    contentBytes: bytes[2 * at + 1] ?? 0,
    checksum: flag & hasChecksum ? checksums[at] : undefined,
    skippable: (flag & isSkippable) !== 0,
  }
}
