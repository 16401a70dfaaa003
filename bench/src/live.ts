import { rmSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { captureQemu } from "@stillframe/hypervisors/qemu/capture"
import { qemuFiles } from "@stillframe/hypervisors/qemu/command"
import { setUpLiveSave, untilStateSaved } from "@stillframe/hypervisors/qemu/live-save"
import { migrationEnd } from "@stillframe/hypervisors/qemu/migration"
import { probeQemu } from "@stillframe/hypervisors/qemu/probe"
import { probeLiveCapture } from "@stillframe/hypervisors/qemu/probe-live"
import { withMonitor, type QmpEvent } from "@stillframe/hypervisors/qemu/qmp"
import { findProgram } from "@stillframe/runtime/find-program"
import { installImages } from "@stillframe/stillframe/install-images"
import { startGuest, type Guest } from "./guest.ts"
import type { Machine } from "./machine.ts"
import { byTurns, median, printComparisons, printTimes, range } from "./measure.ts"
import { scratch } from "./scratch.ts"

const rounds = 9
const memoryMib = 512
const settleMs = 100
const { signal } = new AbortController()

/**
 * How long a live capture stands still a guest: `captureQemu` called directly, against `stop`, a background `migrate` and `cont` by hand
 * on the same process, against a background `migrate` that stops the guest by itself, and against a paused capture.
 */
export async function benchLive(plain: Machine): Promise<void> {
  using place = scratch("live")
  const machine = await liveMachine(plain)
  const imagesDir = join(place.dir, "images")
  await installImages(imagesDir)
  const trial = { ...machine, machine: machine.machines.q35, memoryMib: 64, dir: place.dir, signal }
  const probe = await probeLiveCapture({ ...trial, kernel: join(imagesDir, "heartbeat.elf") })
  if (!probe.live_capture) return console.log(`\nlive capture is not measured: ${probe.reason}`)
  console.log(`\npause of a 512 MiB demo guest on QEMU ${machine.version}, captured live; ms`)
  for (const inUseMib of [16, 256]) {
    const dir = join(place.dir, `guest-${inUseMib}`)
    await using guest = await startGuest(machine, { dir, imagesDir, memoryMib, disks: [], inUseMib })
    await measure(machine, guest, { memoryFile: join(place.dir, "memory"), inUseMib })
  }
}

async function measure(
  machine: Machine,
  guest: Guest,
  { memoryFile, inUseMib }: { memoryFile: string; inUseMib: number },
): Promise<void> {
  const capture = async (mode: "live" | "paused") => {
    const limits = { pauseExpectedMs: 60_000, pauseLimitMs: 60_000 }
    const options = { dir: guest.dir, memoryFile, qemuImg: machine.qemuImg, ...limits, signal, mode }
    const { pauseMs } = await captureQemu({ ...options, beforePause: () => {} })
    rmSync(memoryFile)
    return pauseMs
  }
  const itself: number[] = []
  const paused: number[] = []
  const { ours, theirs } = await byTurns(
    rounds,
    () => capture("live"),
    async () => {
      paused.push(await capture("paused"))
      itself.push(await saveByItself(guest, memoryFile))
      return await saveByHand(guest, memoryFile)
    },
  )
  const size = `${inUseMib} MiB of random bytes in it`
  printComparisons([
    { what: `${size}: to stop, migrate, cont by hand`, ours, theirs, target: "≤ 1.5" },
    { what: `${size}: to a paused capture`, ours, theirs: paused, target: "≤ 0.1" },
  ])
  printTimes([{ what: `${size}: a background migrate that stops by itself`, ms: itself }])
  console.log(`live ${range(ours)} ms (median ${median(ours).toFixed(1)}), paused ${range(paused)} ms`)
}

/** The same steps without disks, sink or safeguards. Resolves with the pause: from before `stop` to the answer of `cont`. */
async function saveByHand(guest: Guest, file: string): Promise<number> {
  return await withMonitor(guest.dir, qemuFiles.command, async (monitor) => {
    await setUpLiveSave(monitor)
    const end = migrationEnd(monitor)
    const started = performance.now()
    await monitor.execute("stop")
    const saved = untilStateSaved(monitor, end.promise)
    await monitor.execute("migrate", { uri: `exec:cat > ${file}` })
    await saved
    await monitor.execute("cont")
    const pauseMs = performance.now() - started
    await end.promise
    end.stop()
    // QEMU says so some milliseconds before it takes the next one.
    await delay(settleMs)
    rmSync(file)
    return pauseMs
  })
}

/** QEMU's own stop, which leaves no moment to freeze a disk in. Resolves with the time between its two events. */
async function saveByItself(guest: Guest, file: string): Promise<number> {
  return await withMonitor(guest.dir, qemuFiles.command, async (monitor) => {
    await setUpLiveSave(monitor)
    const end = migrationEnd(monitor)
    const at = new Map<string, number>()
    monitor.subscribe(({ event, timestamp }: QmpEvent) => {
      at.set(event, timestamp.seconds * 1000 + timestamp.microseconds / 1000)
    })
    await monitor.execute("migrate", { uri: `exec:cat > ${file}` })
    await end.promise
    end.stop()
    // QEMU says so some milliseconds before it takes the next one.
    await delay(settleMs)
    rmSync(file)
    return (at.get("RESUME") ?? Number.NaN) - (at.get("STOP") ?? Number.NaN)
  })
}

/** The set-up's QEMU 10 where there is one, else that of the other measurements. */
async function liveMachine(machine: Machine): Promise<Machine> {
  const binary = findProgram("qemu-system-x86_64-10", process.env["PATH"])
  const probe = await probeQemu(binary, signal).catch(() => undefined)
  return probe === undefined ? machine : { ...machine, ...probe, binary }
}
