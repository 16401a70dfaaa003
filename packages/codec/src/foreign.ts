import type { FileHandle } from "node:fs/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { fileReader, type FileReader } from "./file-reader.ts"
import { regularFileBytes } from "./files.ts"
import { lz4Content } from "./foreign-lz4.ts"
import { zstdContent } from "./foreign-zstd.ts"
import { isSkippable, lz4LegacyMagic, lz4Magic, zstdMagic } from "./frame-magic.ts"
import { corrupted } from "./seek-table.ts"

/**
 * Writes the content of a file that has no seek table, as the zstd and lz4 commands make them, to an empty file, pieces
 * of zeros as holes, and returns its size in bytes. One thread and memory of a few MiB, whatever the file's size.
 */
export async function decodeForeign(
  source: FileHandle,
  destination: FileHandle,
  { path, signal }: { path: string; signal: AbortSignal },
): Promise<number> {
  const fileBytes = await regularFileBytes(source, path)
  const content = await contentFor(fileReader(source, fileBytes))
  let position = 0
  for await (const piece of content(fileReader(source, fileBytes))) {
    signal.throwIfAborted()
    if (!isZeros(piece)) await writeAll(destination, piece, position)
    position += piece.length
  }
  await destination.truncate(position)
  return position
}

/** By the first frame that is not skippable. Throws `corrupted`, and `not_supported` for LZ4's legacy format. */
async function contentFor(reader: FileReader): Promise<(reader: FileReader) => AsyncGenerator<Buffer>> {
  for (;;) {
    const magic = (await reader.exactly(4)).readUInt32LE(0)
    if (magic === zstdMagic) return zstdContent
    if (magic === lz4Magic) return lz4Content
    if (magic === lz4LegacyMagic) throw isLegacy()
    if (!isSkippable(magic)) throw corrupted("it starts with neither a zstd nor an LZ4 frame")
    await reader.skip((await reader.exactly(4)).readUInt32LE(0))
  }
}

function isLegacy(): StillframeError {
  return new StillframeError(
    "not_supported",
    "the file is in LZ4's legacy format (lz4 -l), which has no checksums; decompress it with the lz4 command",
  )
}

const zeros = Buffer.alloc(1024 * 1024)

function isZeros(piece: Buffer): boolean {
  return piece.length <= zeros.length && zeros.subarray(0, piece.length).equals(piece)
}

async function writeAll(destination: FileHandle, piece: Buffer, position: number): Promise<void> {
  for (let done = 0; done < piece.length;) {
    const { bytesWritten } = await destination.write(piece, done, piece.length - done, position + done)
    done += bytesWritten
  }
}
