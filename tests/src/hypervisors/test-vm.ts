import { readFileSync, watch } from "node:fs"
import { mkdir, mkdtemp, readdir, readlink, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import type { Disk } from "@stillframe/hypervisors/disks/disks"
import { linkFiles } from "@stillframe/hypervisors/files/link-files"
import type { DiskConfig, LaunchConfig } from "@stillframe/hypervisors/launch-config"
import { endProcess, type ProcessIdentity } from "@stillframe/hypervisors/process/processes"
import { captureQemu, type Captured, type CaptureOptions } from "@stillframe/hypervisors/qemu/capture/capture"
import { addOverlays } from "@stillframe/hypervisors/qemu/layers/layers"
import { probeQemu, type QemuProbe } from "@stillframe/hypervisors/qemu/probe/probe"
import { launchQemu } from "@stillframe/hypervisors/qemu/process/launch"
import {
  immutableFiles,
  prepareLaunch,
  startGuest,
} from "@stillframe/hypervisors/qemu/process/prepare-launch"
import { restoreQemu } from "@stillframe/hypervisors/qemu/process/restore"
import { findProgram } from "@stillframe/runtime/find-program"
import { patienceMs } from "@stillframe/testing/patience"

/** Found on PATH, like every test's QEMU. */
export const qemu = {
  binary: findProgram(process.env["QEMU_BINARY"] ?? "qemu-system-x86_64", process.env["PATH"]),
  qemuImg: "qemu-img",
}
export const heartbeat = fileURLToPath(
  new URL("../../../packages/hypervisors/guests/heartbeat.elf", import.meta.url),
)
export const never = new AbortController().signal

/** A folder for one test, and the processes started in it: both gone when the test is. */
export interface Ground extends AsyncDisposable {
  root: string
  own: (identity: ProcessIdentity) => ProcessIdentity
  folder: (name: string) => Promise<string>
}

export async function ground(): Promise<Ground> {
  const root = await mkdtemp(join(tmpdir(), "stillframe-vm-"))
  const processes: ProcessIdentity[] = []
  return {
    root,
    own: (identity) => {
      processes.push(identity)
      return identity
    },
    folder: async (name) => {
      await mkdir(join(root, name), { recursive: true })
      return join(root, name)
    },
    [Symbol.asyncDispose]: async () => {
      for (const identity of processes) await endProcess(identity, { graceMs: 0 })
      await rm(root, { recursive: true })
    },
  }
}

export interface TestVm {
  dir: string
  config: LaunchConfig
  disks: Disk[]
  process: ProcessIdentity
  /** Where it is not the QEMU of the other tests. */
  binary?: string
}

export interface VmOptions {
  binary?: string
  dir?: string
  disks?: DiskConfig[]
  change?: Partial<LaunchConfig>
  runAs?: { uid: number; gid: number }
}

/** A running heartbeat guest that has ticked. */
export async function startHeartbeat(ground: Ground, options: VmOptions = {}): Promise<TestVm> {
  const dir = options.dir ?? (await ground.folder("vm"))
  const config = await heartbeatConfig(options)
  const rules = { hostPaths: [ground.root, join(heartbeat, "..")], dataDir: join(ground.root, "data") }
  const disks = await prepareLaunch(config, { dir, qemuImg: qemu.qemuImg, signal: never, rules })
  const binary = options.binary ?? qemu.binary
  const launch = { dir, config, disks, binary, identity: "stillframe-test-vm", signal: never }
  const runAs = options.runAs === undefined ? {} : { runAs: options.runAs }
  const process = ground.own(await launchQemu({ ...launch, ...runAs }))
  await startGuest(dir)
  await untilTicks(dir, 3)
  return { dir, config, disks, process, binary }
}

export async function heartbeatConfig(options: VmOptions = {}): Promise<LaunchConfig> {
  const { disks = [], change = {}, binary = qemu.binary } = options
  const { machines } = await probed(binary)
  const fixed = { machine: machines.q35, accel: "tcg", cpu: "qemu64", memoryMib: 64, vcpus: 1 } as const
  return { ...fixed, kernel: heartbeat, disks, ...change }
}

const probes = new Map<string, Promise<QemuProbe>>()

/** A probe starts QEMU twice, so each binary is asked once. */
function probed(binary: string): Promise<QemuProbe> {
  const probe = probes.get(binary) ?? probeQemu(binary, never)
  probes.set(binary, probe)
  return probe
}

export interface TestCapture extends Captured {
  memoryFile: string
  /** What the guest had printed when it stood still. */
  printed: string
}

export async function capture(
  ground: Ground,
  vm: TestVm,
  name: string,
  change: Partial<CaptureOptions> = {},
): Promise<TestCapture> {
  const memoryFile = join(ground.root, name)
  let printed = ""
  const onPaused = (): void => {
    printed = serial(vm.dir)
    change.onPaused?.()
  }
  const limits = { pauseExpectedMs: 30_000, pauseLimitMs: 30_000 }
  const fixed = { dir: vm.dir, memoryFile, qemuImg: qemu.qemuImg, ...limits, signal: never }
  const captured = await captureQemu({ ...fixed, beforePause: () => {}, ...change, onPaused })
  return { ...captured, memoryFile, printed }
}

/** A second VM from a capture, which runs and has ticked. */
export async function fork(
  ground: Ground,
  vm: TestVm,
  captured: TestCapture,
  name: string,
  memory: AsyncIterable<Uint8Array>,
  config = vm.config,
): Promise<TestVm> {
  const dir = await ground.folder(name)
  await linkFiles(
    immutableFiles(vm.config, captured.disks).map(({ file }) => file),
    vm.dir,
    dir,
    never,
  )
  const disks = await addOverlays(captured.disks, { dir, qemuImg: qemu.qemuImg, signal: never })
  const { binary = qemu.binary } = vm
  const launch = { dir, config, disks, binary, identity: "stillframe-test-fork", signal: never }
  const process = ground.own(await restoreQemu({ ...launch, memory }))
  await startGuest(dir)
  await untilTicks(dir, 3)
  return { dir, config, disks, process, binary }
}

export function serial(dir: string): string {
  return readFileSync(join(dir, "serial.log"), "latin1")
}

/**
 * The guest's lines; the last one only if it is whole, as the first, in whose middle a restored guest may go
 * on.
 */
export function ticks(text: string): { tick: number; sum: string }[] {
  const [first = "", ...others] = text.split("\n").slice(0, -1)
  const lines = /^[0-9a-f]{8} [0-9a-f]{8}$/.test(first) ? [first, ...others] : others
  return lines.map((line) => ({ tick: Number.parseInt(line.slice(0, 8), 16), sum: line.slice(9) }))
}

/** The first place where the ticks do not go on by one with the same sum. */
export function firstGap(text: string): string | undefined {
  const all = ticks(text)
  const at = all.findIndex(
    ({ tick, sum }, index) => tick !== (all[0]?.tick ?? 0) + index || sum !== all[0]?.sum,
  )
  return at === -1 ? undefined : JSON.stringify(all.slice(Math.max(0, at - 1), at + 1))
}

/** Waits until the guest has printed `more` whole lines beyond `from`. */
export async function untilTicks(dir: string, more: number, from = 0): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const deadline = AbortSignal.timeout(patienceMs)
  const look = (): void => {
    const text = serial(dir)
    // Cheap to ask each time the guest prints; the whole lines are less than those that end.
    if (linesIn(text) >= from + more && ticks(text).length >= from + more) resolve()
  }
  const watcher = watch(join(dir, "serial.log"), look)
  const onLate = (): void => reject(new Error(`the guest printed no ${more} lines in ${patienceMs} ms`))
  deadline.addEventListener("abort", onLate, { once: true })
  look()
  await promise.finally(() => watcher.close())
}

function linesIn(text: string): number {
  let lines = 0
  for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", at + 1)) lines++
  return lines
}

/** Pids of the processes that work in a directory. */
export async function pidsIn(dir: string): Promise<string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name))
  const folders = await Promise.all(
    pids.map(async (pid) => await readlink(`/proc/${pid}/cwd`).catch(() => "")),
  )
  return pids.filter((_, index) => folders[index] === dir)
}
