import { createHash } from "node:crypto"
import type { FileHandle } from "node:fs/promises"
import type { OnProgress } from "../compress.ts"
import { decompressFile } from "../decompress.ts"
import { byTableOrStream, type CompressedSource, openForeign } from "../foreign/source.ts"
import { type Verified, verifyFile } from "../verify.ts"
import { fileError, writeAll, writeNewFile } from "./files.ts"

interface Work {
  readonly threads: number
  readonly signal: AbortSignal
  readonly onProgress?: OnProgress | undefined
}

/**
 * Decompresses a zstd or LZ4 file of any program, or a pipe with one, into `destination`, which must not
 * exist; zeros become holes. On failure or abort the destination is gone. Throws `corrupted` and
 * `not_supported`.
 */
export async function decompressAny(
  options: Work & {
    readonly source: CompressedSource
    readonly destination: string
    /** Permission bits of the new file, before the process's umask. */
    readonly mode?: number | undefined
  },
): Promise<{ uncompressedBytes: number }> {
  const { source, destination: path, mode, signal } = options
  try {
    return await byTableOrStream(source, {
      byTable: (file) => decompressFile({ ...options, source: file }),
      byStream: () => writeNewFile({ path, mode, sync: true }, (handle) => decode(source, handle, signal)),
    })
  } catch (thrown) {
    throw fileError(thrown)
  }
}

async function decode(
  source: CompressedSource,
  destination: FileHandle,
  signal: AbortSignal,
): Promise<{ uncompressedBytes: number }> {
  await using foreign = await openForeign(source)
  let position = 0
  for await (const piece of foreign.content) {
    signal.throwIfAborted()
    if (!isZeros(piece)) await writeAll(destination, piece, position)
    position += piece.length
  }
  await destination.truncate(position)
  return { uncompressedBytes: position }
}

const zeros = Buffer.alloc(2 * 1024 * 1024)

function isZeros(piece: Buffer): boolean {
  return piece.length <= zeros.length && zeros.subarray(0, piece.length).equals(piece)
}

export interface VerifiedAny extends Verified {
  /** True if a seek table describes the last frames. Without one, missing frames at the end go unnoticed. */
  readonly endsInTable: boolean
}

/**
 * Reads a zstd or LZ4 file of any program, or a pipe with one, and checks all of it. Throws as
 * `decompressAny`.
 */
export async function verifyAny(source: CompressedSource, work: Work): Promise<VerifiedAny> {
  try {
    return await byTableOrStream(source, {
      byTable: async (path) => ({ ...(await verifyFile({ path, ...work })), endsInTable: true }),
      byStream: () => verifyStream(source, work.signal),
    })
  } catch (thrown) {
    throw fileError(thrown)
  }
}

async function verifyStream(source: CompressedSource, signal: AbortSignal): Promise<VerifiedAny> {
  await using foreign = await openForeign(source, { fromDevice: true })
  const { found, fromDevice } = foreign
  const hash = createHash("sha256")
  let uncompressedBytes = 0
  for await (const piece of foreign.content) {
    signal.throwIfAborted()
    hash.update(piece)
    uncompressedBytes += piece.length
  }
  const { algorithm, endsInTable } = found
  return { algorithm, fromDevice, sha256: hash.digest("hex"), uncompressedBytes, endsInTable }
}
