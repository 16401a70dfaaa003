import { execFileSync, spawnSync } from "node:child_process"
import { closeSync, openSync, readFileSync, statSync, writeSync } from "node:fs"
import { mkdtemp, rm } from "node:fs/promises"
import { availableParallelism, tmpdir } from "node:os"
import { join } from "node:path"
import { codecsInUse } from "@stillframe/codec/codecs"
import { compressFile } from "@stillframe/codec/compress"
import { decompressFile } from "@stillframe/codec/decompress"
import { sha256File } from "@stillframe/codec/hash"
import { verifyFile } from "@stillframe/codec/verify"
import type { Algorithm } from "@stillframe/domain/compression"

const rounds = 5
const imageBytes = 512 * 2 ** 20
const threads = availableParallelism()
const { signal } = new AbortController()

/**
 * Prints the compression rows of the design's table of numbers: medians of five rounds, ours and the command line tools
 * by turns in the same run. Ours always includes the sync of the file; the tools' time is given without and with it.
 * `BENCH_GUEST_MEMORY` names a guest's raw memory to be measured as well.
 */
export async function benchCompression(): Promise<void> {
  const folder = await mkdtemp(join(process.env["BENCH_DIR"] ?? tmpdir(), "bench-compression-"))
  try {
    const image = join(folder, "image")
    writeSyntheticImage(image)
    console.log(`compression, ${threads} threads,`, codecsInUse())
    await benchImage("synthetic 512 MiB", image, folder)
    const guest = process.env["BENCH_GUEST_MEMORY"]
    if (guest) await benchImage("guest's memory", guest, folder)
    else console.log("guest's memory: not measured, BENCH_GUEST_MEMORY names none")
  } finally {
    await rm(folder, { recursive: true })
  }
}

async function benchImage(title: string, source: string, folder: string): Promise<void> {
  console.log(
    `\n${title}, ${Math.round((100 * zeroFrames(source)) / Math.ceil(statSync(source).size / 262_144))} % zero frames`,
  )
  for (const algorithm of ["zstd", "lz4"] as const) {
    if (spawnSync(algorithm, ["--version"]).status !== 0) {
      console.log(`${algorithm}: the command is not on PATH, nothing to compare with`)
      continue
    }
    console.table(await benchAlgorithm(algorithm, source, folder))
  }
}

async function benchAlgorithm(algorithm: Algorithm, source: string, folder: string): Promise<Row[]> {
  const [ours, theirs, unpacked] = ["ours", "theirs", "unpacked"].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ]
  const { sha256, bytes } = await sha256File(source, { signal })
  const level = algorithm === "zstd" ? 1 : 0
  const pack = algorithm === "zstd" ? ["-1", `-T${threads}`] : ["-1"]
  const times = new Map<string, Sample[]>()
  const measure = async (what: string, run: () => unknown): Promise<void> => {
    const samples = times.get(what) ?? []
    times.set(what, [...samples, await sample(run)])
  }
  let size = 0
  for (let round = 0; round < rounds; round++) {
    await measure("theirs compress", () =>
      tool(algorithm, ...pack, "-qf", source, ...outputTo(algorithm, theirs)),
    )
    await measure("theirs sync", () => tool("sync", theirs))
    await measure("theirs test", () => tool(algorithm, "-tq", theirs))
    await measure("theirs decompress", () =>
      tool(algorithm, "-dqf", theirs, ...outputTo(algorithm, unpacked)),
    )
    size = statSync(theirs).size
    await rm(theirs)
    await rm(unpacked)

    const shared = { algorithm, level, threads, signal }
    await measure("ours compress", () => compressFile({ source, destination: ours, ...shared }))
    await measure("ours verify", () =>
      verifyFile({ path: ours, sha256, uncompressedBytes: bytes, threads, signal }),
    )
    await measure("ours decompress", () =>
      decompressFile({ source: ours, destination: unpacked, threads, signal }),
    )
    size = statSync(ours).size / size
    if (round < rounds - 1) await rm(ours)
    await rm(unpacked)
  }
  const of = (what: string): Sample[] => times.get(what) ?? []
  const synced = sums(of("theirs compress"), of("theirs sync"))
  await rm(ours)
  const peak = peakMebibytes(source, ours, algorithm, level)
  await rm(ours)
  return [
    row(`compress ${algorithm} ${level}`, of("ours compress"), of("theirs compress"), synced),
    row(
      `compress and verify ${algorithm} ${level}`,
      sums(of("ours compress"), of("ours verify")),
      sums(of("theirs compress"), of("theirs test")),
      sums(synced, of("theirs test")),
    ),
    row(`decompress ${algorithm}`, of("ours decompress"), of("theirs decompress")),
    { what: `size ${algorithm}`, ratio: round2(size) },
    { what: `peak memory ${algorithm}, MiB`, ours: peak },
  ]
}

interface Sample {
  ms: number
  cpuMs: number
}

interface Row {
  what: string
  ours?: number
  theirs?: number
  ratio?: number
  "ratio, theirs synced"?: number
  "ours, CPU ms"?: number
  "theirs, CPU ms"?: number
}

function row(what: string, ours: Sample[], theirs: Sample[], synced?: Sample[]): Row {
  const ms = (samples: Sample[]): number => median(samples.map((each) => each.ms))
  const cpu = (samples: Sample[]): number => median(samples.map((each) => each.cpuMs))
  return {
    what: `${what}, ms`,
    ours: Math.round(ms(ours)),
    theirs: Math.round(ms(theirs)),
    ratio: round2(ms(ours) / ms(theirs)),
    ...(synced && { "ratio, theirs synced": round2(ms(ours) / ms(synced)) }),
    "ours, CPU ms": cpu(ours),
    "theirs, CPU ms": cpu(theirs),
  }
}

async function sample(run: () => unknown): Promise<Sample> {
  const cpu = cpuMs()
  const start = performance.now()
  await run()
  return { ms: performance.now() - start, cpuMs: cpuMs() - cpu }
}

/** Of this process and of the commands it has waited for: fields 14 to 17 of proc(5)'s stat, in ticks of 10 ms. */
function cpuMs(): number {
  const stat = readFileSync("/proc/self/stat", "utf8")
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return 10 * fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0)
}

function sums(first: Sample[], second: Sample[]): Sample[] {
  return first.map((each, round) => ({
    ms: each.ms + (second[round]?.ms ?? 0),
    cpuMs: each.cpuMs + (second[round]?.cpuMs ?? 0),
  }))
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}

function round2(value: number): number {
  return Math.round(value * 100) / 100
}

function tool(command: string, ...args: string[]): void {
  execFileSync(command, args, { stdio: ["ignore", "ignore", "inherit"] })
}

function outputTo(algorithm: Algorithm, path: string): string[] {
  return algorithm === "zstd" ? ["-o", path] : [path]
}

/** Of a fresh process that compresses the file and does nothing else. */
function peakMebibytes(source: string, destination: string, algorithm: Algorithm, level: number): number {
  // Not resourceUsage().maxRSS: Linux starts that at what the parent had.
  const script = `
    import { readFileSync } from "node:fs"
    import { compressFile } from ${JSON.stringify(import.meta.resolve("@stillframe/codec/compress"))}
    const options = ${JSON.stringify({ source, destination, algorithm, level, threads })}
    await compressFile({ ...options, signal: new AbortController().signal })
    console.log(/VmHWM:\\s*(\\d+)/.exec(readFileSync("/proc/self/status", "utf8"))?.[1])`
  const output = execFileSync(process.execPath, ["--input-type=module", "--eval", script], {
    encoding: "utf8",
  })
  return Math.round(Number(output) / 1024)
}

function zeroFrames(path: string): number {
  const bytes = readFileSync(path)
  const zeros = Buffer.alloc(262_144)
  let count = 0
  for (let at = 0; at < bytes.length; at += zeros.length) {
    if (bytes.compare(zeros, 0, undefined, at, Math.min(at + zeros.length, bytes.length)) === 0) count++
  }
  return count
}

/** Half zeros in runs of 64 KiB to 8 MiB, a sixth each of machine code (this Node), text and noise. */
function writeSyntheticImage(path: string): void {
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
