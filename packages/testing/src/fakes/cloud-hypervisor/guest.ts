import { closeSync, openSync, readSync, writeSync } from "node:fs"

const words = 0x4000
const wordBytes = 4
/** Where the pattern and the tick lie in the guest's memory. */
const patternAt = 0x20_0000
const tickAt = 0x1000
const tickMs = 10

/**
 * Does what the heartbeat image does: fills memory with a pattern, then prints `<tick> <sum>` for ever. Tick
 * and pattern are read from the memory they were saved to, so a guest that goes on by one with the same sum
 * has got its memory back.
 */
export class Guest {
  #tick = 0
  #pattern = new Uint32Array(words)
  readonly #serial: number
  /** The sum of the pattern, which nothing changes once it is there. */
  #sum = ""
  #timer: NodeJS.Timeout | undefined

  constructor(serial: string) {
    this.#serial = openSync(serial, "w", 0o644)
  }

  fill(): void {
    let word = 0x1234_5678
    for (let index = 0; index < words; index++) {
      word = (Math.imul(word, 1_664_525) + 1_013_904_223) >>> 0
      this.#pattern[index] = word
    }
    this.#sum = hex(sumOf(this.#pattern))
  }

  run(): void {
    this.#timer ??= setInterval(() => this.#beat(), tickMs)
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  end(): void {
    this.stop()
    closeSync(this.#serial)
  }

  writeMemory(fd: number): void {
    writeSync(fd, new Uint32Array([this.#tick]), 0, wordBytes, tickAt)
    writeSync(fd, this.#pattern, 0, words * wordBytes, patternAt)
  }

  readMemory(fd: number): void {
    const tick = new Uint32Array(1)
    const read =
      readSync(fd, tick, 0, wordBytes, tickAt) + readSync(fd, this.#pattern, 0, words * wordBytes, patternAt)
    if (read !== wordBytes + words * wordBytes) throw new Error("failed to fill whole buffer")
    this.#tick = tick[0] ?? 0
    this.#sum = hex(sumOf(this.#pattern))
  }

  #beat(): void {
    this.#tick++
    writeSync(this.#serial, `${hex(this.#tick)} ${this.#sum}\n`)
  }
}

/**
 * In signed numbers until the end, which the processor adds up ten times as fast: every guest does this all
 * the time.
 */
function sumOf(pattern: Uint32Array): number {
  const signed = new Int32Array(pattern.buffer)
  let sum = 0
  for (let at = 0; at < words; at++) {
    sum = (sum + (signed[at] ?? 0)) | 0
    sum = (sum << 1) | (sum >>> 31)
  }
  return sum >>> 0
}

const hex = (value: number): string => value.toString(16).padStart(8, "0")
