import type { Socket } from "node:net"

const newline = 0x0a
/** A buffer that grew beyond this for one line is given back after it. */
const keptBytesMax = 64 * 1024

interface LineListener {
  /** The longest line that may come now, in bytes. */
  readonly bytesMax: () => number
  /** Takes one line without its end, and its length in bytes. Throws for what the peer may not send. */
  readonly onLine: (line: string, bytes: number) => void
  /**
   * Makes the error that the socket is destroyed with. `tooLong`: the limit; otherwise `onLine` threw
   * `cause`.
   */
  readonly breach: (found: { readonly tooLong: number } | { readonly cause: unknown }) => Error
}

/** Reads lines of a peer that may not be trusted, in linear time and bounded memory. */
export function readBoundedLines(socket: Socket, { bytesMax, onLine, breach }: LineListener): void {
  const line = growingLine()
  /** False when the line has become too long. */
  const take = (piece: Buffer): boolean => {
    if (line.bytes() + piece.length > bytesMax()) return false
    line.append(piece)
    return true
  }
  socket.on("data", (chunk: Buffer) => {
    let from = 0
    for (let end = chunk.indexOf(newline); end !== -1; end = chunk.indexOf(newline, from)) {
      if (!take(chunk.subarray(from, end))) return void socket.destroy(breach({ tooLong: bytesMax() }))
      const bytes = line.bytes()
      try {
        onLine(line.flush(), bytes)
      } catch (cause) {
        return void socket.destroy(breach({ cause }))
      }
      // The listener may have closed the socket.
      if (socket.destroyed) return
      from = end + 1
    }
    if (!take(chunk.subarray(from))) socket.destroy(breach({ tooLong: bytesMax() }))
  })
}

function growingLine(): { bytes(): number; append(piece: Buffer): void; flush(): string } {
  let held = Buffer.alloc(0)
  let bytes = 0
  return {
    bytes: () => bytes,
    append(piece) {
      if (bytes + piece.length > held.length) {
        // Doubled, so that a line in many small pieces is still copied in linear time.
        const larger = Buffer.allocUnsafe(Math.max(2 * held.length, bytes + piece.length))
        held.copy(larger, 0, 0, bytes)
        held = larger
      }
      piece.copy(held, bytes)
      bytes += piece.length
    },
    flush() {
      const text = held.toString("utf8", 0, bytes)
      bytes = 0
      if (held.length > keptBytesMax) held = Buffer.alloc(0)
      return text
    },
  }
}
