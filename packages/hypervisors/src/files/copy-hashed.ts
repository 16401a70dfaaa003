import type { FileHandle } from "node:fs/promises"
import {
  contentHash,
  holeSteps,
  isZeros,
  plainHash,
  zeroBlockBytes,
  type ContentHash,
} from "@stillframe/storage/content-hash"

/** One piece is hashed while the next is read. */
const pieceBytes = 1024 ** 2

export interface Reading {
  readonly signal: AbortSignal
  /** Called after each piece with how much of the file was read, in bytes. */
  readonly onBytes?: ((bytes: number) => void) | undefined
}

/**
 * Reads a file from its start to its end, and resolves with the hash of its content. The holes of a large
 * file are not read. `to`: an empty file that becomes a copy, in which blocks of zeros are holes. An abort
 * throws the signal's reason.
 */
export async function copyHashed(from: FileHandle, options: Reading & { to?: FileHandle }): Promise<string> {
  return await copyWith(contentHash((await from.stat()).size), from, options)
}

/** As `copyHashed`, with the SHA-256 that earlier versions kept of files of any size. */
export async function hashPlainly(from: FileHandle, options: Reading): Promise<string> {
  return await copyWith(plainHash(), from, options)
}

async function copyWith(
  hash: ContentHash,
  from: FileHandle,
  { to, signal, onBytes }: Reading & { to?: FileHandle },
): Promise<string> {
  const { size } = await from.stat()
  const next = hash.skipsZeros ? holeSteps(from, { bytes: size, pieceBytes }) : (at: number) => at
  const buffers = [Buffer.allocUnsafeSlow(pieceBytes), Buffer.allocUnsafeSlow(pieceBytes)] as const
  let position = next(0)
  let reading = fill(from, buffers[0], position)
  for (let turn = 0; ; turn ^= 1) {
    const piece = await reading
    if (piece.length === 0) break
    signal.throwIfAborted()
    const at = position
    position = next(at + piece.length)
    reading = fill(from, buffers[turn === 0 ? 1 : 0], position)
    try {
      hash.update(piece, at)
      if (to !== undefined) await writeData(to, piece, at)
    } catch (error) {
      await reading.catch(() => {
        // The first failure is the one to tell of; this read only has to be over before its buffer goes.
      })
      throw error
    }
    onBytes?.(position)
  }
  await to?.truncate(position)
  return hash.digest(position)
}

/** Reads until the buffer is full or the file ends: pieces begin where the blocks of the hash do. */
async function fill(from: FileHandle, buffer: Buffer, position: number): Promise<Buffer> {
  let filled = 0
  while (filled < buffer.length) {
    const { bytesRead } = await from.read(buffer, filled, buffer.length - filled, position + filled)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return buffer.subarray(0, filled)
}

/** Writes what is not zeros, in as few calls as there are runs of it. */
async function writeData(to: FileHandle, piece: Buffer, at: number): Promise<void> {
  let start = 0
  for (let end = 0; end < piece.length;) {
    const block = piece.subarray(end, end + zeroBlockBytes)
    const isHole = isZeros(block)
    if (isHole && start < end) await writeAll(to, piece.subarray(start, end), at + start)
    end += block.length
    if (isHole) start = end
  }
  if (start < piece.length) await writeAll(to, piece.subarray(start), at + start)
}

async function writeAll(to: FileHandle, piece: Buffer, at: number): Promise<void> {
  for (let written = 0; written < piece.length;) {
    const { bytesWritten } = await to.write(piece, written, piece.length - written, at + written)
    written += bytesWritten
  }
}
