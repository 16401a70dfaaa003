import { rmSync, statSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { DiskConfig } from "@stillframe/hypervisors/launch-config"
import { captureQemu } from "@stillframe/hypervisors/qemu/capture/capture"
import { installImages } from "@stillframe/stillframe/stack/install-images"
import { saveByHand, startGuest, type Guest } from "../guest.ts"
import type { Machine } from "../machine.ts"
import { byTurns, printComparisons, range, type Comparison } from "../measure.ts"
import { scratch } from "../scratch.ts"

const rounds = 11
const memoryMib = 512
const diskBytes = 64 * 2 ** 20
const { signal } = new AbortController()

/**
 * How long a capture stands still a guest. Ours is `captureQemu` alone, called directly: what a captor calls
 * with the pause record's fsync before the pause. The reference is `stop`, `exec:cat > file`, `cont` on the
 * same process and file system.
 */
export async function benchPause(machine: Machine): Promise<void> {
  using place = scratch("pause")
  const imagesDir = join(place.dir, "images")
  await installImages(imagesDir)
  const disk = join(place.dir, "disk.raw")
  writeFileSync(disk, "")
  truncateSync(disk, diskBytes)
  console.log(
    "\npause of a 512 MiB demo guest, captureQemu called directly, against stop, exec:cat, cont; ms",
  )
  const kinds: [string, DiskConfig[]][] = [
    ["no disk", []],
    [
      "one disk, which ours freezes and the reference does not",
      [{ path: disk, format: "raw", readonly: false }],
    ],
  ]
  const comparisons: Comparison[] = []
  const spreads: string[] = []
  for (const [what, disks] of kinds) {
    const dir = join(place.dir, `guest-${comparisons.length}`)
    await using guest = await startGuest(machine, { dir, imagesDir, memoryMib, disks })
    const { ours, theirs, bytes } = await measure(machine, guest, place.dir)
    comparisons.push({ what, ours, theirs, target: "≤ 1.0" })
    spreads.push(`${what}: ours ${range(ours)} ms, theirs ${range(theirs)} ms, ${Math.round(bytes / 1e6)} MB`)
  }
  printComparisons(comparisons)
  for (const spread of spreads) console.log(spread)
}

async function measure(
  machine: Machine,
  guest: Guest,
  dir: string,
): Promise<{ ours: number[]; theirs: number[]; bytes: number }> {
  let bytes = 0
  const memoryFile = join(dir, "memory")
  const removed = async (save: () => Promise<number>): Promise<number> => {
    const pauseMs = await save()
    bytes = statSync(memoryFile).size
    rmSync(memoryFile)
    return pauseMs
  }
  const options = {
    dir: guest.dir,
    memoryFile,
    qemuImg: machine.qemuImg,
    pauseExpectedMs: 60_000,
    pauseLimitMs: 60_000,
    signal,
  }
  const times = await byTurns(
    rounds,
    () => removed(async () => (await captureQemu({ ...options, beforePause: () => {} })).pauseMs),
    () => removed(() => saveByHand(guest, memoryFile)),
  )
  return { ...times, bytes }
}
