import {
  contentHash,
  holeSteps,
  plainHash,
  sparseBytesMin,
  type ContentHash,
} from "@stillframe/storage/content-hash"
import { openRegular } from "@stillframe/storage/open-regular"
import { alignedMemory, openDirect } from "./frames/direct.ts"
import { fileError, shortened } from "./frames/files.ts"

/** One piece is hashed while the next is read; larger ones are no faster. */
const pieceBytes = 1024 * 1024

/**
 * The SHA-256 (hexadecimal) and size of a regular file. Holes are read too, so the hash finds data that was
 * taken for a hole. Hashed on the calling thread: a thread of its own takes longer to start (300 ms in a
 * young process) than a guest's memory to hash (70 ms for 108 MB). An abort throws the signal's reason.
 *
 * `fromDevice`: the bytes come past the page cache (O_DIRECT) where the file system can do that. `onBytes`:
 * called with the number of bytes that have been read, after each piece.
 */
export async function sha256File(path: string, reading: FileReading): Promise<FileHash> {
  return await hashFile(path, plainHash, reading)
}

interface FileReading {
  readonly signal: AbortSignal
  readonly fromDevice?: boolean
  readonly onBytes?: (bytes: number) => void
}

interface FileHash {
  readonly sha256: string
  readonly bytes: number
}

/**
 * The hash of a disk's or an image's file, as `sha256File`: from `sparseBytesMin` on that of its content,
 * whose holes are not read. `expected`: the hash that it should have; a file that has it as its plain
 * SHA-256, as earlier versions kept it, resolves with that.
 */
export async function diskHash(
  path: string,
  { expected, ...reading }: FileReading & { readonly expected?: string | undefined },
): Promise<FileHash> {
  const found = await hashFile(path, contentHash, reading)
  const isOfNow = expected === undefined || found.sha256 === expected || found.bytes < sparseBytesMin
  if (isOfNow) return found
  const plain = await sha256File(path, reading)
  return plain.sha256 === expected ? plain : found
}

async function hashFile(
  path: string,
  hashOf: (bytes: number) => ContentHash,
  { signal, fromDevice = false, onBytes = () => {} }: FileReading,
): Promise<FileHash> {
  signal.throwIfAborted()
  try {
    const direct = fromDevice ? await openDirect(path) : undefined
    await using file = direct ?? (await openRegular(path))
    const bytes = (await file.stat()).size
    const hash = hashOf(bytes)
    const next = hash.skipsZeros ? holeSteps(file, { bytes, pieceBytes }) : (at: number) => at
    const buffers = pieces(direct !== undefined)
    let position = next(0)
    let reading = file.read(buffers[0], 0, pieceBytes, position)
    for (let turn = 0; position < bytes; turn ^= 1) {
      const { bytesRead, buffer } = await reading
      const at = position
      // Pieces begin where the blocks of the hash do; a regular file is read in part only at its end.
      if (bytesRead === 0 || (bytesRead < pieceBytes && at + bytesRead < bytes)) throw shortened()
      position = next(at + bytesRead)
      onBytes(position)
      reading = file.read(buffers[turn === 0 ? 1 : 0], 0, pieceBytes, position)
      hash.update(buffer.subarray(0, bytesRead), at)
      signal.throwIfAborted()
    }
    await reading
    return { sha256: hash.digest(bytes), bytes }
  } catch (thrown) {
    throw fileError(thrown)
  }
}

function pieces(direct: boolean): readonly [Uint8Array, Uint8Array] {
  if (!direct) return [Buffer.allocUnsafeSlow(pieceBytes), Buffer.allocUnsafeSlow(pieceBytes)]
  const memory = alignedMemory(2 * pieceBytes)
  return [memory.subarray(0, pieceBytes), memory.subarray(pieceBytes)]
}
