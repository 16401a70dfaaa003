import { closeSync, openSync, readFileSync, writeSync } from "node:fs"

/**
 * Half zeros in runs of 64 KiB to 8 MiB, a sixth each of machine code (this Node), text and noise. Holds no
 * holes.
 */
export function writeSyntheticImage(path: string, imageBytes: number): void {
  const next = noise(42)
  const code = readFileSync(process.execPath)
  const words = Array.from({ length: 4000 }, () => {
    const letters = Array.from({ length: 2 + (next() % 9) }, () => String.fromCharCode(97 + (next() % 26)))
    return letters.join("")
  })
  const file = openSync(path, "wx")
  for (let at = 0; at < imageBytes;) {
    const length = Math.min(imageBytes - at, 4096 * Math.ceil(16 * 128 ** (next() / 2 ** 32)))
    const kind = next() % 6
    at += writeSync(
      file,
      kind < 3
        ? Buffer.alloc(length)
        : kind === 3
          ? machineCode(code, length, next)
          : kind === 4
            ? text(words, length, next)
            : noiseBytes(length, next),
    )
  }
  closeSync(file)
}

/** Marsaglia's xorshift, 32 bits: the same image in every run. */
function noise(seed: number): () => number {
  let state = seed
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state >>> 0
  }
}

function machineCode(code: Buffer, length: number, next: () => number): Buffer {
  const start = next() % (code.length - length)
  return code.subarray(start, start + length)
}

function text(words: string[], length: number, next: () => number): Buffer {
  const pieces = []
  for (let bytes = 0; bytes < length;) {
    // Squared, so that a few words are frequent, as in a language.
    const word = words[Math.floor((next() / 2 ** 32) ** 2 * words.length)] ?? ""
    pieces.push(word)
    bytes += word.length + 1
  }
  return Buffer.from(`${pieces.join(" ")} `).subarray(0, length)
}

function noiseBytes(length: number, next: () => number): Buffer {
  return Buffer.from(Uint32Array.from({ length: length / 4 }, next).buffer)
}
