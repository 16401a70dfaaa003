import {
  corrupted,
  entryWords,
  footerBytes,
  frameCountMax,
  isUnknownVersion,
  notSupported,
  parseFooter,
} from "../frames/seek-table.ts"
import { type FoundFrame, type FrameStack, frameStack } from "./frame-stack.ts"

/** Compares seek tables in the middle of a file, or at its end, with the frames before them. */
export interface FrameLog {
  add(frame: FoundFrame): void
  /**
   * `table`: a seek table without its first eight bytes. Throws `corrupted` where it describes other frames.
   */
  compare(table: Uint8Array): void
}

/** The largest table that is compared, without its first eight bytes. */
export const tableBytesMax = 12 * frameCountMax + footerBytes

export function frameLog(): FrameLog {
  let frames = frameStack()
  let tooMany = false
  return {
    add(frame) {
      // No table that is read has so many frames, so nothing will be compared.
      if (tooMany) return
      tooMany = frames.size() === frameCountMax
      if (tooMany) frames = frameStack()
      else frames.push(frame)
    },
    compare(table) {
      // From the end: in joined files, frames of another file without a table may come before.
      if (!tooMany) for (const entry of entriesFromEnd(table)) takeFrames(frames, entry)
      frames = frameStack()
      tooMany = false
    },
  }
}

/**
 * Removes the frames of one entry from the end: one, or several where a writer merged them into one entry. A
 * table need not list skippable frames.
 */
function takeFrames(frames: FrameStack, entry: TableEntry): void {
  while (frames.last()?.skippable && !isEntryOf(frames.last(), entry)) frames.pop()
  let compressedBytes = 0
  let contentBytes = 0
  let count = 0
  let checksum
  while (compressedBytes < entry.compressedBytes) {
    const frame = frames.pop()
    if (frame === undefined) throw describesOthers()
    compressedBytes += frame.compressedBytes
    contentBytes += frame.contentBytes
    checksum = frame.checksum
    count++
  }
  if (compressedBytes !== entry.compressedBytes || contentBytes !== entry.contentBytes)
    throw describesOthers()
  const comparable = count === 1 && contentBytes > 0 && checksum !== undefined && entry.checksum !== undefined
  if (comparable && checksum !== entry.checksum)
    throw corrupted("a frame has another checksum than its seek table says")
}

function isEntryOf(skippable: FoundFrame | undefined, entry: TableEntry): boolean {
  return entry.contentBytes === 0 && skippable?.compressedBytes === entry.compressedBytes
}

function describesOthers(): Error {
  return corrupted("its seek table describes other frames than the file has")
}

interface TableEntry {
  readonly compressedBytes: number
  readonly contentBytes: number
  readonly checksum: number | undefined
}

/**
 * The entries of any writer's table, the last one first, given without its first eight bytes. Throws
 * `corrupted` where its length is not that of its entries, and `not_supported` for another version of the
 * format.
 */
function* entriesFromEnd(table: Uint8Array): Generator<TableEntry> {
  const view = new DataView(table.buffer, table.byteOffset, table.length)
  const footer = table.subarray(-footerBytes)
  if (isUnknownVersion(footer))
    throw notSupported("its seek table is of an unknown version, or damaged; decompress it with zstd -d")
  const { frameCount, entry } = parseFooter(footer)
  if (table.length !== frameCount * entry + footerBytes)
    throw corrupted("its seek table has another length than its footer says")
  for (let at = (frameCount - 1) * entry; at >= 0; at -= entry)
    yield {
      compressedBytes: view.getUint32(at, true),
      contentBytes: view.getUint32(at + 4, true),
      checksum: entry === 4 * entryWords ? view.getUint32(at + 8, true) : undefined,
    }
}
