import { createHash } from "node:crypto"
import { openRegular } from "@stillframe/storage/open-regular"
import { alignedMemory, openDirect } from "./direct.ts"
import { fileError, shortened } from "./files.ts"

/** One piece is hashed while the next is read; larger ones are no faster. */
const pieceBytes = 1024 * 1024

/**
 * The SHA-256 (hexadecimal) and size of a regular file. All of it is read, holes too: what is taken for a hole elsewhere is
 * found out by this. Hashed on the calling thread: a thread of its own takes longer to start (300 ms in a young process) than
 * a guest's memory to hash (70 ms for 108 MB). An abort throws the signal's reason.
 *
 * `fromDevice`: the bytes come past the page cache (O_DIRECT) where the file system can do that. `onBytes`: called with the number of
 * bytes that have been read, after each piece.
 */
export async function sha256File(
  path: string,
  {
    signal,
    fromDevice = false,
    onBytes = () => {},
  }: { signal: AbortSignal; fromDevice?: boolean; onBytes?: (bytes: number) => void },
): Promise<{ sha256: string; bytes: number }> {
  signal.throwIfAborted()
  try {
    const direct = fromDevice ? await openDirect(path) : undefined
    await using file = direct ?? (await openRegular(path))
    const bytes = (await file.stat()).size
    const hash = createHash("sha256")
    const buffers = pieces(direct !== undefined)
    let reading = file.read(buffers[0], 0, pieceBytes, 0)
    for (let position = 0, turn = 0; position < bytes; turn ^= 1) {
      const { bytesRead, buffer } = await reading
      if (bytesRead === 0) throw shortened()
      position += bytesRead
      onBytes(position)
      reading = file.read(buffers[turn === 0 ? 1 : 0], 0, pieceBytes, position)
      hash.update(buffer.subarray(0, bytesRead))
      signal.throwIfAborted()
    }
    await reading
    return { sha256: hash.digest("hex"), bytes }
  } catch (thrown) {
    throw fileError(thrown)
  }
}

function pieces(direct: boolean): readonly [Uint8Array, Uint8Array] {
  if (!direct) return [Buffer.allocUnsafeSlow(pieceBytes), Buffer.allocUnsafeSlow(pieceBytes)]
  const memory = alignedMemory(2 * pieceBytes)
  return [memory.subarray(0, pieceBytes), memory.subarray(pieceBytes)]
}
