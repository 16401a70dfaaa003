import type { Socket } from "node:net"
import { StillframeError } from "@stillframe/domain/errors"

/** Longest line of QEMU: events, the greeting and most answers take some hundred bytes. */
export const lineBytesMax = 64 * 1024
/** Most events, and most bytes of events, in one second. QEMU limits the rate of those that a guest can cause. */
const flood = { windowMs: 1_000, lines: 1_000, bytes: 1024 ** 2 } as const
const newline = 0x0a

export interface LineReader {
  /** The longest line that may come now, in bytes. */
  readonly bytesMax: () => number
  /** Takes one line without its end. True when it answers a command, so that it does not count as an event. Throws for what is no QMP. */
  readonly onLine: (line: string) => boolean
}

/**
 * Reads lines in linear time and bounded memory. The peer may be a QEMU that its guest has taken over: for a line that is too long,
 * a flood of events, or what `onLine` throws, the socket is destroyed with `hypervisor_untrusted`.
 */
export function readLines(socket: Socket, { bytesMax, onLine }: LineReader): void {
  const line = growingLine()
  const events = eventMeter()
  const take = (piece: Buffer): void => {
    if (line.bytes() + piece.length > bytesMax()) throw untrusted(`a line of more than ${bytesMax()} bytes`)
    line.append(piece)
  }
  const finish = (): void => {
    const bytes = line.bytes()
    if (!onLine(line.flush())) events.count(bytes)
  }
  socket.on("data", (chunk: Buffer) => {
    try {
      let from = 0
      for (let end = chunk.indexOf(newline); end !== -1; end = chunk.indexOf(newline, from)) {
        take(chunk.subarray(from, end))
        finish()
        // The listener of an event may have closed the monitor.
        if (socket.destroyed) return
        from = end + 1
      }
      take(chunk.subarray(from))
    } catch (error) {
      socket.destroy(error instanceof StillframeError ? error : untrusted("what is no QMP", error))
    }
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
      if (held.length > lineBytesMax) held = Buffer.alloc(0)
      return text
    },
  }
}

function eventMeter(): { count(bytes: number): void } {
  let window = { since: -Infinity, lines: 0, bytes: 0 }
  return {
    count(bytes) {
      const now = performance.now()
      if (now - window.since > flood.windowMs) window = { since: now, lines: 0, bytes: 0 }
      window.lines++
      window.bytes += bytes
      if (window.lines > flood.lines || window.bytes > flood.bytes)
        throw untrusted(`more than ${flood.lines} events or ${flood.bytes} bytes of them in a second`)
    },
  }
}

function untrusted(sent: string, cause?: unknown): StillframeError {
  return new StillframeError(
    "hypervisor_untrusted",
    `the VM's monitor sent ${sent}; its guest may have escaped the VM, so stop the instance`,
    { cause },
  )
}
