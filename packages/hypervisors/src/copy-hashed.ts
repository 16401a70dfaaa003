import { createHash } from "node:crypto"
import type { FileHandle } from "node:fs/promises"

/** One piece is hashed while the next is read. */
const pieceBytes = 1024 ** 2
/** Zeros of this size become holes. */
const holeBytes = 64 * 1024
const zeros = Buffer.alloc(holeBytes)

export interface Reading {
  readonly signal: AbortSignal
  /** Called after each piece with how much of the file was read, in bytes. */
  readonly onBytes?: ((bytes: number) => void) | undefined
}

/**
 * Reads a file from its start to its end, and resolves with its SHA-256 in hexadecimal. `to`: an empty file that becomes a copy, in
 * which pieces of zeros are holes. An abort throws the signal's reason.
 */
export async function copyHashed(
  from: FileHandle,
  { to, signal, onBytes }: Reading & { to?: FileHandle },
): Promise<string> {
  const hash = createHash("sha256")
  const buffers = [Buffer.allocUnsafeSlow(pieceBytes), Buffer.allocUnsafeSlow(pieceBytes)] as const
  let position = 0
  let reading = from.read(buffers[0], 0, pieceBytes, 0)
  for (let turn = 0; ; turn ^= 1) {
    const { bytesRead, buffer } = await reading
    if (bytesRead === 0) break
    signal.throwIfAborted()
    const at = position
    position += bytesRead
    reading = from.read(buffers[turn === 0 ? 1 : 0], 0, pieceBytes, position)
    const piece = buffer.subarray(0, bytesRead)
    try {
      hash.update(piece)
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
  return hash.digest("hex")
}

/** Writes what is not zeros, in as few calls as there are runs of it. */
async function writeData(to: FileHandle, piece: Buffer, at: number): Promise<void> {
  let start = 0
  for (let end = 0; end < piece.length;) {
    const block = piece.subarray(end, end + holeBytes)
    const isHole = block.equals(zeros.subarray(0, block.length))
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
