import type { Algorithm } from "@stillframe/domain/compression"
import { codecFor, loadCodec } from "../frames/codecs.ts"
import { isSkippable, lz4Magic, seekTableMagic, zstdMagic } from "../frames/magic.ts"
import { decodeLz4Small } from "../lz4/small.ts"
import { zstdExtent } from "../zstd/extent.ts"
import { xxh64Low32 } from "../zstd/xxh64.ts"
import type { FoundFrame } from "./frame-stack.ts"

/** Whole frames that follow each other, decoded together. */
interface FrameRun {
  /** How many compressed bytes the run takes. */
  readonly taken: number
  /** The algorithm of the first frame that is not skippable. */
  readonly algorithm: Algorithm | undefined
  /** Valid until the next run. */
  readonly content: Buffer
}

const contentBytesMax = 2 * 1024 * 1024

/**
 * Returns a function that decodes the good frames at the start of `bytes` and gives each to `onFrame`. A file
 * of a million tiny frames then takes one call of zstd for thousands of them, and none of LZ4's. It leaves a
 * frame that is bad, large, unusual or not all there, and a seek table, to a reader of single frames. `hash`:
 * as for `zstdFrame`.
 */
export function frameRuns(
  onFrame: (frame: FoundFrame) => void,
  { hash }: { hash: boolean },
): (bytes: Buffer) => FrameRun {
  const output = Buffer.allocUnsafeSlow(contentBytesMax)
  return (bytes) => {
    let taken = 0
    let length = 0
    let algorithm: Algorithm | undefined
    while (bytes.length - taken >= frameBytesMin) {
      const isLz4 = bytes.readUInt32LE(taken) === lz4Magic
      const frames = isLz4 ? lz4Frame(bytes, taken, output, length) : zstdGroup(bytes, taken, output, length)
      if (frames.length === 0) break
      for (const frame of frames) {
        const content = { from: length, to: length + frame.contentBytes }
        taken += frame.compressedBytes
        length = content.to
        if (!frame.skippable) algorithm ??= isLz4 ? "lz4" : "zstd"
        const unknown = hash && !isLz4 && !frame.skippable && frame.checksum === undefined
        onFrame(
          unknown ? { ...frame, checksum: xxh64Low32(output.subarray(content.from, content.to)) } : frame,
        )
      }
    }
    return { taken, algorithm, content: output.subarray(0, length) }
  }
}

/** The size and magic number of a skippable frame. */
const frameBytesMin = 8

function lz4Frame(bytes: Buffer, start: number, output: Buffer, to: number): FoundFrame[] {
  const frame = decodeLz4Small(bytes, start, output, to)
  if (frame === undefined) return []
  const { end, contentEnd, checksum } = frame
  return [{ compressedBytes: end - start, contentBytes: contentEnd - to, checksum, skippable: false }]
}

/** Decodes zstd frames, and skippable ones, that one call decodes; only the good ones before a bad one. */
function zstdGroup(bytes: Buffer, start: number, output: Buffer, to: number): FoundFrame[] {
  const room = output.subarray(to)
  const group = describedZstd(bytes, start, room.length)
  const codec = loadCodec(codecFor("zstd"))
  if (group.length > 1 && codec.decompressFrames) {
    try {
      const end = group.reduce((at, frame) => at + frame.compressedBytes, start)
      codec.decompressFrames(bytes.subarray(start, end), room)
      return group
    } catch {
      // One of them is bad: it is found below, and judged where frames are read one by one.
    }
  }
  return decodedOneByOne(bytes, start, room, group)
}

const groupFramesMax = 4096

/**
 * Frames as their headers describe them; one whose header does not say its content's size is alone, with the
 * most it can have.
 */
function describedZstd(bytes: Buffer, start: number, room: number): FoundFrame[] {
  const frames: FoundFrame[] = []
  let left = room
  for (let at = start; frames.length < groupFramesMax && bytes.length - at >= frameBytesMin;) {
    const magic = bytes.readUInt32LE(at)
    if (isSkippable(magic) && magic !== seekTableMagic) {
      const compressedBytes = frameBytesMin + bytes.readUInt32LE(at + 4)
      if (at + compressedBytes > bytes.length) break
      frames.push({ compressedBytes, contentBytes: 0, checksum: undefined, skippable: true })
      at += compressedBytes
      continue
    }
    const extent = magic === zstdMagic ? zstdExtent(bytes, at) : undefined
    if (extent === undefined) break
    const { end, contentBytesMax, contentBytes = contentBytesMax, checksum } = extent
    const isAlone = extent.contentBytes === undefined
    if (contentBytes > left || (isAlone && frames.length > 0)) break
    frames.push({ compressedBytes: end - at, contentBytes, checksum, skippable: false })
    if (isAlone) break
    left -= contentBytes
    at = end
  }
  return frames
}

/** The good frames up to the first bad one, with the sizes of their content. */
function decodedOneByOne(
  bytes: Buffer,
  start: number,
  room: Buffer,
  group: readonly FoundFrame[],
): FoundFrame[] {
  const codec = loadCodec(codecFor("zstd"))
  const good: FoundFrame[] = []
  let at = start
  let to = 0
  for (const frame of group) {
    const compressed = bytes.subarray(at, (at += frame.compressedBytes))
    if (frame.skippable) {
      good.push(frame)
      continue
    }
    try {
      const contentBytes = codec.decompressFrame(compressed, room.subarray(to, to + frame.contentBytes))
      good.push({ ...frame, contentBytes })
      to += contentBytes
    } catch {
      // Judged where frames are read one by one.
      break
    }
  }
  return good
}
