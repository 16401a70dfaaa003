import type { FileHandle } from "node:fs/promises"
import type { Algorithm } from "@stillframe/domain/compression"
import { openRegular } from "@stillframe/storage/open-regular"
import { batchesOf } from "./batches.ts"
import { type CodecId, codecFor } from "./codecs.ts"
import { alignedMemory, openDirect, pagesAround } from "./direct.ts"
import { shortened } from "./files.ts"
import { lz4Magic, zstdMagic } from "./magic.ts"
import { corrupted, footerBytes, parseSeekTable, type SeekTable, seekTableBytes } from "./seek-table.ts"

/** A compressed file, open for reading, whose table was read and checked. Threads get it as it is. */
export interface Frames {
  fd: number
  /**
   * Read past the page cache (O_DIRECT): positions, lengths and memory must then be multiples of the page
   * size.
   */
  fromDevice: boolean
  algorithm: Algorithm
  codec: CodecId
  table: SeekTable
  /** See `batchesOf`. */
  batches: Uint32Array<SharedArrayBuffer>
  uncompressedBytes: number
}

export interface OpenedFrames extends AsyncDisposable {
  handle: FileHandle
  frames: Frames
}

/** Throws `corrupted` when the file is not in our format, and the system's error when it cannot be read. */
export async function openFrames(path: string, { fromDevice = false } = {}): Promise<OpenedFrames> {
  const opened = fromDevice ? await openDirect(path) : undefined
  const handle = opened ?? (await openRegular(path))
  try {
    const fileBytes = (await handle.stat()).size
    if (fileBytes < footerBytes) throw corrupted("it is too short to hold a seek table")
    const footer = await readFooter(handle, fileBytes)
    const tableBytes = seekTableBytes(footer, fileBytes)
    const framesBytes = fileBytes - tableBytes
    const table = parseSeekTable(await readPages(handle, framesBytes, tableBytes), framesBytes)
    const algorithm = table.frameCount ? algorithmOf(await readPages(handle, 0, 4)) : "zstd"
    const frames: Frames = {
      fd: handle.fd,
      fromDevice: opened !== undefined,
      algorithm,
      codec: codecFor(algorithm),
      table,
      batches: batchesOf(table),
      uncompressedBytes: table.positions[table.frameCount] ?? 0,
    }
    return {
      handle,
      frames,
      [Symbol.asyncDispose]: () => handle.close(),
    }
  } catch (thrown) {
    await handle.close()
    throw thrown
  }
}

/** The last bytes of a file, where the footer of a seek table would be; fewer of a shorter file. */
export async function readFooter(handle: FileHandle, fileBytes: number): Promise<Uint8Array> {
  const length = Math.min(footerBytes, fileBytes)
  return readPages(handle, fileBytes - length, length)
}

async function readPages(handle: FileHandle, start: number, length: number): Promise<Uint8Array> {
  const { position, bytes } = pagesAround(start, start + length)
  const memory = alignedMemory(bytes)
  const from = start - position
  for (let done = 0; done < from + length;) {
    const { bytesRead } = await handle.read(memory, done, bytes - done, position + done)
    if (bytesRead === 0) throw shortened()
    done += bytesRead
  }
  return memory.subarray(from, from + length)
}

/** By the first frame's magic number. */
function algorithmOf(start: Uint8Array): Algorithm {
  const magic = new DataView(start.buffer, start.byteOffset, 4).getUint32(0, true)
  if (magic === zstdMagic) return "zstd"
  if (magic === lz4Magic) return "lz4"
  throw corrupted("it starts with neither a zstd nor an LZ4 frame")
}
