import { rmSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { captureQemu } from "@stillframe/hypervisors/qemu/capture/capture"
import { setUpLiveSave, untilStateSaved } from "@stillframe/hypervisors/qemu/capture/live-save"
import { migrationEnd } from "@stillframe/hypervisors/qemu/capture/migration"
import { withMonitor, type QmpEvent } from "@stillframe/hypervisors/qemu/monitor/qmp"
import { probeQemu } from "@stillframe/hypervisors/qemu/probe/probe"
import { probeLiveCapture } from "@stillframe/hypervisors/qemu/probe/probe-live"
import { qemuFiles } from "@stillframe/hypervisors/qemu/process/command"
import { findProgram } from "@stillframe/runtime/find-program"
import { installImages } from "@stillframe/stillframe/stack/install-images"
import { startGuest, type Guest } from "../guest.ts"
import type { Machine } from "../machine.ts"
import { byTurns, median, printComparisons, printTimes, range } from "../measure.ts"
import { scratch } from "../scratch.ts"

const rounds = 9
/** Each boots three guests. */
const freshRounds = 5
const memoryMib = 512
const settleMs = 100
const { signal } = new AbortController()

/**
 * How long a live capture stands still a guest: `captureQemu` called directly, against `stop`, a background
 * `migrate` and `cont` by hand, against a background `migrate` that stops the guest by itself, and against a
 * paused capture. First each on a process of its own, then by turns on one: a live save splits the huge pages
 * that a guest's memory lies in, and the kernel takes minutes to join them again.
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
  const dir = join(place.dir, "guest")
  for (const inUseMib of [16, 256]) {
    const boot = () => startGuest(machine, { dir, imagesDir, memoryMib, disks: [], inUseMib })
    const use = { machine, memoryFile: join(place.dir, "memory") }
    const fresh = async <T>(work: (guest: Guest) => Promise<T>): Promise<T> => {
      try {
        await using guest = await boot()
        return await work(guest)
      } finally {
        rmSync(dir, { recursive: true })
      }
    }
    await measure(`${inUseMib} MiB of random bytes, the first capture of a process`, freshRounds, {
      ...use,
      on: fresh,
    })
    await fresh((guest) =>
      measure(`${inUseMib} MiB of random bytes, again and again`, rounds, {
        ...use,
        on: (work) => work(guest),
      }),
    )
  }
}

interface Use {
  readonly machine: Machine
  readonly memoryFile: string
  /** Hands out the guest to be measured. */
  readonly on: <T>(work: (guest: Guest) => Promise<T>) => Promise<T>
}

async function measure(what: string, rounds: number, { machine, memoryFile, on }: Use): Promise<void> {
  const capture = async (mode: "live" | "paused") =>
    await on(async ({ dir }) => {
      const limits = { pauseExpectedMs: 60_000, pauseLimitMs: 60_000 }
      const options = { dir, memoryFile, qemuImg: machine.qemuImg, ...limits, signal, mode }
      const { pauseMs } = await captureQemu({ ...options, beforePause: () => {} })
      rmSync(memoryFile)
      return pauseMs
    })
  const itself: number[] = []
  const paused: number[] = []
  const { ours, theirs } = await byTurns(
    rounds,
    () => capture("live"),
    async () => {
      paused.push(await capture("paused"))
      itself.push(await on((guest) => saveByItself(guest, memoryFile)))
      return await on((guest) => saveByHand(guest, memoryFile))
    },
  )
  printComparisons([
    { what: `${what}: to stop, migrate, cont by hand`, ours, theirs, target: "≤ 1.5" },
    { what: `${what}: to a paused capture`, ours, theirs: paused, target: "≤ 0.1" },
  ])
  printTimes([{ what: `${what}: a background migrate that stops by itself`, ms: itself }])
  console.log(`live ${range(ours)} ms (median ${median(ours).toFixed(1)}), paused ${range(paused)} ms`)
}

/**
 * The same steps without disks, sink or safeguards. Resolves with the pause: from before `stop` to the answer
 * of `cont`.
 */
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

/**
 * QEMU's own stop, which leaves no moment to freeze a disk in. Resolves with the time between its two events.
 */
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
