import { spawnSync } from "node:child_process"
import { rmSync, statSync } from "node:fs"
import { availableParallelism } from "node:os"
import { join } from "node:path"
import { codecsInUse } from "@stillframe/codec/frames/codecs"
import { sha256File } from "@stillframe/codec/hash"
import type { Machine } from "../machine.ts"
import { byTurns, median, printComparisons, type Comparison } from "../measure.ts"
import { scratch } from "../scratch.ts"
import { costOf, peakMebibytes, runCommand, sum, type Command, type Cost } from "./cost.ts"
import { writeMemoryImages, zeroFrameShare, type MemoryImage } from "./memory-images.ts"
import { compressStep, decompressStep, verifyStep, type Sides, type Step } from "./steps.ts"
import { tinyFramesStep } from "./tiny-frames.ts"

const rounds = 9
const threads = availableParallelism()
const { signal } = new AbortController()

/**
 * Compression, verification and decompression of three memory images against `zstd -1` and `lz4 -1` on the
 * same files. A turn begins with the same files in place on both sides and leaves none behind; its own output
 * is synced and removed before the other side's turn.
 */
export async function benchCompression(machine: Machine): Promise<void> {
  using place = scratch("compression")
  console.log(`\ncompression by ${threads} threads, ${Object.values(codecsInUse()).join(", ")}; ms`)
  console.log(
    "Ours compresses with a sync at the end, theirs without; verify reads from the device, -t from the cache.",
  )
  for (const image of await writeMemoryImages(machine, place.dir)) {
    const zeros = Math.round(100 * zeroFrameShare(image.path))
    const megabytes = Math.round(statSync(image.path).size / 1e6)
    console.log(`\n${image.what}: ${megabytes} MB, ${zeros} % of its frames are zeros`)
    printComparisons([
      ...(await benchAlgorithm("zstd", 1, image, place.dir)),
      ...(await benchAlgorithm("lz4", 0, image, place.dir)),
    ])
  }
  console.log("\na million frames, each a line of a log, without a seek table")
  printComparisons([
    ...(await benchTinyFrames("zstd", place.dir)),
    ...(await benchTinyFrames("lz4", place.dir)),
  ])
}

async function benchTinyFrames(algorithm: "zstd" | "lz4", dir: string): Promise<Comparison[]> {
  if (!hasTool(algorithm)) return []
  return [row(`verify ${algorithm}`, await measure(tinyFramesStep(algorithm, dir, threads)), "≤ 3")]
}

async function benchAlgorithm(
  algorithm: "zstd" | "lz4",
  level: number,
  image: MemoryImage,
  dir: string,
): Promise<Comparison[]> {
  if (!hasTool(algorithm)) return []
  const work = { algorithm, level, threads }
  const packed = sides(dir, "packed")
  const outputs = sides(dir, "output")
  const prepare = compressStep(image.path, packed, work)
  await prepare.ours()
  runCommand(prepare.theirs)
  const { sha256 } = await sha256File(image.path, { signal })

  const compress = await measure(compressStep(image.path, outputs, work))
  const verify = await measure(verifyStep(packed, work, sha256))
  const decompress = await measure(decompressStep(packed, outputs, { ...work, sync: false }))
  const synced = await measure(decompressStep(packed, outputs, { ...work, sync: true }))

  const size = (path: string): number[] => [statSync(path).size / 1e6]
  const sizes = { ours: size(packed.ours), theirs: size(packed.theirs) }
  removeBoth(packed)
  const name = `${algorithm} ${level}`
  const reach = reachOf(algorithm, image)
  return [
    row(`compress ${name}`, compress, reach.compress),
    row(`compress ${name}, both synced`, theirsSynced(compress)),
    row(`compress and verify ${name}`, inOne(compress, verify), reach.both),
    row(`verify ${algorithm}`, verify),
    row(`decompress ${algorithm}, neither synced`, decompress, "≤ 0.7"),
    row(`decompress ${algorithm}, both synced`, theirsSynced(synced)),
    { what: `size ${name}, MB`, ...sizes, target: algorithm === "zstd" ? "≤ 1.02" : "" },
  ]
}

function hasTool(algorithm: "zstd" | "lz4"): boolean {
  const found = spawnSync(algorithm, ["--version"]).status === 0
  if (!found) console.log(`${algorithm}: the command is not on PATH, nothing to compare with`)
  return found
}

function reachOf(algorithm: "zstd" | "lz4", image: MemoryImage): { compress: string; both?: string } {
  if (algorithm === "lz4") return { compress: "≤ 0.7" }
  return image.isRawMemory ? { compress: "≤ 0.5" } : { compress: "≤ 1.0", both: "≤ 1.1" }
}

/** For each round; the peaks, in MiB, are of one more run of each side in a process of its own. */
interface Measured {
  readonly ours: readonly Cost[]
  readonly theirs: readonly Cost[]
  /** What syncing their output took besides. */
  readonly theirSyncs: readonly Cost[]
  readonly peaks?: { readonly ours: number; readonly theirs: number }
}

async function measure(step: Step): Promise<Measured> {
  const theirSyncs: Cost[] = []
  const ours = async (): Promise<Cost> => {
    const cost = await costOf(step.ours)
    if (step.outputs) runCommand(["sync", step.outputs.ours])
    removeBoth(step.outputs)
    return cost
  }
  const theirs = async (): Promise<Cost> => {
    const cost = await costOf(() => runCommand(step.theirs))
    theirSyncs.push(await costOf(() => step.outputs && runCommand(["sync", step.outputs.theirs])))
    removeBoth(step.outputs)
    return cost
  }
  await byTurns(warmUps, ours, theirs)
  const costs = await byTurns(rounds, ours, theirs)
  const peak = async (command: Command): Promise<number> => {
    const mebibytes = await peakMebibytes(command)
    removeBoth(step.outputs)
    return mebibytes
  }
  const peaks = { ours: await peak(step.oursApart), theirs: await peak(step.theirs) }
  return { ...costs, theirSyncs: theirSyncs.slice(warmUps), peaks }
}

/** Not counted: for the threads, the compilers and the page cache. */
const warmUps = 1

function theirsSynced({ ours, theirs, theirSyncs }: Measured): Measured {
  return { ours, theirs: sums(theirs, theirSyncs), theirSyncs: [] }
}

function inOne(first: Measured, second: Measured): Measured {
  return { ours: sums(first.ours, second.ours), theirs: sums(first.theirs, second.theirs), theirSyncs: [] }
}

function sums(first: readonly Cost[], second: readonly Cost[]): Cost[] {
  return first.map((cost, round) => sum(cost, second[round] ?? { ms: Number.NaN, cpuMs: Number.NaN }))
}

function row(what: string, { ours, theirs, peaks }: Measured, target = ""): Comparison {
  const ms = (costs: readonly Cost[]): number[] => costs.map((cost) => cost.ms)
  const cpu = (costs: readonly Cost[]): number => median(costs.map((cost) => cost.cpuMs))
  return {
    what,
    ours: ms(ours),
    theirs: ms(theirs),
    target,
    besides: {
      "CPU ms": `${cpu(ours)} / ${cpu(theirs)}`,
      ...(peaks && { "peak MiB": `${peaks.ours} / ${peaks.theirs}` }),
    },
  }
}

function sides(dir: string, name: string): Sides {
  return { ours: join(dir, `ours-${name}`), theirs: join(dir, `theirs-${name}`) }
}

function removeBoth(paths: Sides | undefined): void {
  for (const path of Object.values(paths ?? {})) rmSync(path, { force: true })
}
