import { createReadStream } from "node:fs"
import { link, readdir } from "node:fs/promises"
import { basename, join } from "node:path"
import type { Capture, CaptureRequest } from "@stillframe/hypervisors/capture"
import type { Disk } from "@stillframe/hypervisors/disks/disks"
import type { CapturedMemory, Hypervisor, VmLaunch } from "@stillframe/hypervisors/hypervisor"
import type { DiskConfig, GuestConfig } from "@stillframe/hypervisors/launch-config"
import type { ProcessIdentity } from "@stillframe/hypervisors/process/processes"
import { expect } from "vitest"
import { storeIn } from "../laid-disks.ts"
import { firstGap, heartbeat, never, serial, ticks, untilTicks, type Ground } from "../test-vm.ts"
import type { Subject } from "./subject.ts"

/** A hypervisor and the ground on which a test has its VMs. */
export interface Bench {
  readonly place: Ground
  readonly subject: Subject
  readonly hypervisor: Hypervisor
}

export interface SubjectVm {
  readonly dir: string
  readonly config: GuestConfig
  readonly disks: readonly Disk[]
  readonly identity: string
  readonly process: ProcessIdentity
}

const memoryName = "memory"

export async function openBench(
  place: Ground,
  subject: Subject,
  options: { readonly answerMs?: number } = {},
): Promise<Bench> {
  return { place, subject, hypervisor: await subject.hypervisor(place, options) }
}

/** What launches a guest in an empty directory. */
export async function prepared(
  { place, subject, hypervisor }: Bench,
  { name = "vm", disks: callers = [] as DiskConfig[] } = {},
): Promise<VmLaunch> {
  const dir = await place.folder(name)
  const config = { ...subject.guest, disks: callers }
  const rules = { hostPaths: [place.root, join(heartbeat, "..")], dataDir: join(place.root, "data") }
  const disks = await hypervisor.prepare(config, { dir, rules, signal: never })
  return { dir, config, disks, identity: identityOf(place, name), signal: never }
}

/** A running guest that has ticked. */
export async function startVm(
  bench: Bench,
  options: { name?: string; disks?: DiskConfig[] } = {},
): Promise<SubjectVm> {
  const { place, hypervisor } = bench
  const launch = await prepared(bench, options)
  const process = place.own(await hypervisor.launch(launch))
  await hypervisor.begin(launch.dir)
  await untilTicks(launch.dir, 3)
  return { ...launch, process }
}

export interface Save {
  readonly captured: Capture
  readonly dir: string
  readonly config: GuestConfig
  /** What the guest had printed when it stood still. */
  readonly printed: string
}

/** Captures a VM, and nothing more: what a captor does in the pause. */
export async function captureVm(
  { place, hypervisor }: Bench,
  { dir, config }: SubjectVm,
  payload: string,
  change: Partial<CaptureRequest> = {},
): Promise<Save> {
  const into = await place.folder(payload)
  let printed = serial(dir)
  const limits = { pauseExpectedMs: 30_000, pauseLimitMs: 30_000 }
  const onPaused = (): void => {
    printed = serial(dir)
    change.onPaused?.()
  }
  const request = { beforePause: () => {}, ...limits, signal: never, ...change, onPaused }
  const captured = await hypervisor.capture({ dir, config }, { dir: into, memoryName }, request)
  return { captured, dir: into, config, printed }
}

/** Captures a VM and brings all that a restore needs into the payload. */
export async function saveVm(
  bench: Bench,
  vm: SubjectVm,
  payload = "payload",
  change: Partial<CaptureRequest> = {},
): Promise<Save> {
  const save = await captureVm(bench, vm, payload, change)
  const place = { from: vm.dir, dir: save.dir, store: storeIn(bench.place), signal: never }
  await bench.hypervisor.keep(save.captured.disks, { config: vm.config, ...place })
  return save
}

/** What loads a save in a directory of its own. */
export async function restoreOptions(
  { place, hypervisor }: Bench,
  { captured, dir: from, config }: Save,
  name: string,
): Promise<VmLaunch & { readonly memory: CapturedMemory }> {
  const dir = await place.folder(name)
  await hypervisor.bring(captured.disks, { config, from, dir, store: storeIn(place), signal: never })
  const disks = await hypervisor.top(captured.disks, { dir, signal: never })
  const states = captured.files.filter(({ role }) => role === "state")
  const memory: CapturedMemory = {
    stream: () => createReadStream(join(from, memoryName)),
    place: async (path) => await link(join(from, memoryName), path),
    state: { dir: from, names: states.map((file) => file.name) },
  }
  return { dir, config, disks, identity: identityOf(place, name), signal: never, memory }
}

/** A VM from a save; its guest does not run yet. */
export async function restoreVm(bench: Bench, save: Save, name: string): Promise<SubjectVm> {
  const options = await restoreOptions(bench, save, name)
  return { ...options, process: bench.place.own(await bench.hypervisor.restore(options)) }
}

/** A VM from a save, which runs, and whose guest went on by one. */
export async function forkVm(bench: Bench, save: Save, name: string): Promise<SubjectVm> {
  const fork = await restoreVm(bench, save, name)
  await bench.hypervisor.begin(fork.dir)
  await untilTicks(fork.dir, 3)
  expect(firstGap(save.printed + serial(fork.dir))).toBeUndefined()
  return fork
}

/** A save is whole: a VM comes of it, which goes on by one. It is ended at once. */
export async function expectWhole(bench: Bench, save: Save): Promise<void> {
  const fork = await forkVm(bench, save, `${basename(save.dir)}-fork`)
  endVms(fork)
}

/** A guest that a test is done with ticks on until its ground goes, which takes more than the test did. */
export function endVms(...vms: readonly SubjectVm[]): void {
  for (const vm of vms) process.kill(vm.process.pid, "SIGKILL")
}

/** The guest prints on, and no tick is missing since it was launched. */
export async function expectRuns({ dir }: { readonly dir: string }): Promise<void> {
  await untilTicks(dir, 3, ticks(serial(dir)).length)
  expect(firstGap(serial(dir))).toBeUndefined()
}

/** No half snapshot is there to be seen. */
export async function expectNothingLeft({ place }: Bench, payload: string): Promise<void> {
  expect(await readdir(join(place.root, payload))).toEqual([])
}

/** Its guest is deaf, so it is not asked for long. */
export async function stopVm({ hypervisor }: Bench, { dir, process }: SubjectVm): Promise<void> {
  await hypervisor.stop(dir, process, { guestMs: 50, processMs: 5_000, signal: never })
}

/** Not every console's file is there before its guest boots. */
export async function printedIn(dir: string): Promise<string> {
  return (await readdir(dir)).includes("serial.log") ? serial(dir) : ""
}

/** Nobody else's, whatever runs on this machine. */
const identityOf = ({ root }: Ground, name: string): string => `stillframe-${basename(root)}-${name}`
