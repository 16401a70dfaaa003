import { readSync, writeSync } from "node:fs"

/**
 * A guest like our heartbeat: adds up a pattern in its memory for ever and prints `<tick> <sum>` on the
 * console.
 */
export interface Guest {
  run(): void
  pause(): void
  /** The guest's memory at an offset that is a multiple of the chunk's size. */
  chunk(offset: number): Buffer
}

export const chunkBytes = 1024 ** 2

const tickMs = 10
const patternBytes = 64 * 1024
/** As in the real guest. */
const patternAt = 2 * chunkBytes
const console = 1
const sigbus = 149

/**
 * A guest that starts anew, or one whose memory is the file behind `fd`: mapped, so it is read whenever the
 * guest looks.
 */
export function startGuest(fd?: number): Guest {
  let tick = fd === undefined ? 0 : read(fd, 4, 0).readUInt32LE()
  let timer: NodeJS.Timeout | undefined
  const pattern = fd === undefined ? freshPattern() : undefined
  const memory = (): Buffer => pattern ?? read(fd ?? -1, patternBytes, patternAt)
  // Nothing writes to a pattern of its own; one in a file may be another at each look.
  const sum = pattern === undefined ? undefined : sumOf(pattern)
  const beat = (): void => {
    tick++
    writeSync(console, `${hex(tick)} ${hex(sum ?? sumOf(memory()))}\n`)
  }
  return {
    run: () => {
      timer ??= setInterval(beat, tickMs)
    },
    pause: () => {
      clearInterval(timer)
      timer = undefined
    },
    chunk: (offset) => {
      const bytes = Buffer.alloc(chunkBytes)
      if (offset === 0) bytes.writeUInt32LE(tick)
      if (offset === patternAt) memory().copy(bytes)
      return bytes
    },
  }
}

/** A page that the file does not have is a SIGBUS, which Firecracker ends by. */
function read(fd: number, length: number, position: number): Buffer {
  const bytes = Buffer.alloc(length)
  if (readSync(fd, bytes, 0, length, position) < length) process.exit(sigbus)
  return bytes
}

function freshPattern(): Buffer {
  const bytes = Buffer.alloc(patternBytes)
  let word = 0x1234_5678
  for (let at = 0; at < patternBytes; at += 4) {
    word = (Math.imul(word, 1_664_525) + 1_013_904_223) >>> 0
    bytes.writeUInt32LE(word, at)
  }
  return bytes
}

/**
 * In signed numbers until the end, which the processor adds up four times as fast: every guest does this all
 * the time.
 */
function sumOf(pattern: Buffer): number {
  const words = new Int32Array(pattern.buffer, pattern.byteOffset, patternBytes / 4)
  let sum = 0
  for (let at = 0; at < words.length; at++) {
    sum = (sum + (words[at] ?? 0)) | 0
    sum = (sum << 1) | (sum >>> 31)
  }
  return sum >>> 0
}

const hex = (value: number): string => value.toString(16).padStart(8, "0")
