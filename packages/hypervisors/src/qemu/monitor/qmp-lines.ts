import type { Socket } from "node:net"
import { StillframeError } from "@stillframe/domain/errors"
import { readBoundedLines } from "../../process/bounded-lines.ts"

/** Longest line of QEMU: events, the greeting and most answers take some hundred bytes. */
export const lineBytesMax = 64 * 1024
/**
 * Most events, and most bytes of events, in one second. QEMU limits the rate of those that a guest can cause.
 * All may come in one turn of the event loop, and JSON of this length, whatever is in it, is parsed within
 * some milliseconds.
 */
const flood = { windowMs: 1_000, lines: 1_000, bytes: 256 * 1024 } as const

export interface LineReader {
  /** The longest line that may come now, in bytes. */
  readonly bytesMax: () => number
  /**
   * Takes one line without its end. True when it answers a command, so that it does not count as an event.
   * Throws for what is no QMP.
   */
  readonly onLine: (line: string) => boolean
}

/**
 * Reads the lines of a monitor. The peer may be a QEMU that its guest has taken over: for a line that is too
 * long, a flood of events, or what `onLine` throws, the socket is destroyed with `hypervisor_untrusted`.
 */
export function readLines(socket: Socket, { bytesMax, onLine }: LineReader): void {
  const events = eventMeter()
  readBoundedLines(socket, {
    bytesMax,
    onLine(line, bytes) {
      if (!onLine(line)) events.count(bytes)
    },
    breach(found) {
      if ("tooLong" in found) return untrusted(`a line of more than ${found.tooLong} bytes`)
      const { cause } = found
      return cause instanceof StillframeError ? cause : untrusted("what is no QMP", cause)
    },
  })
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
