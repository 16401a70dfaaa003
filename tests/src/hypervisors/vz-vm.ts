import { copyFile, link, mkdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import type { SavedFile } from "@stillframe/hypervisors/file-vmm/saved-files"
import type { VmControl } from "@stillframe/hypervisors/file-vmm/vm-control"
import type { Vmm, VmmLaunch } from "@stillframe/hypervisors/file-vmm/vmm"
import type { GuestConfig } from "@stillframe/hypervisors/launch-config"
import type { ProcessIdentity } from "@stillframe/hypervisors/process/processes"
import { vzOn } from "@stillframe/hypervisors/vz/vmm"
import { fakeBinary } from "@stillframe/testing/fake-binary"
import { mac } from "./mac.ts"
import { heartbeat, never, serial, untilTicks, type Ground } from "./test-vm.ts"

export const vz = vzOn({ host: mac })
/** For what is never answered. */
export const impatient = vzOn({ host: mac, deadlineBaseMs: 1_000, deadlineMsPerMib: 0 })

export const guest: GuestConfig = { memoryMib: 16, vcpus: 1, kernel: heartbeat, disks: [] }

export interface VzVm {
  dir: string
  process: ProcessIdentity
  control: VmControl
}

/** A program that is the fake shim, as the service would be told of it. */
export async function fakeShim({ folder }: Ground): Promise<string> {
  return await fakeBinary(await folder("bin"), "vz-shim")
}

export async function launchOptions(
  ground: Ground,
  name: string,
  change: Partial<VmmLaunch> = {},
): Promise<VmmLaunch> {
  const dir = await ground.folder(name)
  await link(heartbeat, join(dir, "kernel")).catch(async () => await copyFile(heartbeat, join(dir, "kernel")))
  const fixed = { config: guest, disks: [], identity: `stillframe-test-${name}`, signal: never }
  return { dir, binary: await fakeShim(ground), ...fixed, ...change }
}

/** A running guest that has ticked. */
export async function startVz(ground: Ground, change: Partial<VmmLaunch> = {}): Promise<VzVm> {
  const options = await launchOptions(ground, "vm", change)
  const process = ground.own(await vz.launch(options))
  await vz.begin(options.dir, options.config)
  await untilTicks(options.dir, 3)
  return { dir: options.dir, process, control: vz.control(options.dir, options.config) }
}

/** Pauses a VM and saves it; it stays paused. */
export async function save(
  ground: Ground,
  vm: VzVm,
  name = "saved",
): Promise<{ dir: string; files: SavedFile[]; printed: string }> {
  const dir = await ground.folder(name)
  await vm.control.pause()
  const files = await vm.control.save(dir, { signal: never })
  return { dir, files, printed: serial(vm.dir) }
}

/** The launch of a VM in a directory of its own, which holds what was saved. */
export async function restoreOptions(
  ground: Ground,
  saved: string,
  name: string,
  change: Partial<VmmLaunch> = {},
): Promise<Parameters<Vmm["restore"]>[0]> {
  const options = await launchOptions(ground, name, change)
  const inside = join(options.dir, "saved")
  await mkdir(inside)
  for (const file of ["machine-state.vzm", "machine.json"])
    await copyFile(join(saved, file), join(inside, file))
  return { ...options, saved: inside }
}

/** A VM that goes on from what was saved, and has ticked. */
export async function restored(ground: Ground, saved: string, name: string): Promise<VzVm> {
  const options = await restoreOptions(ground, saved, name)
  const process = ground.own(await vz.restore(options))
  await vz.begin(options.dir, options.config)
  await untilTicks(options.dir, 3)
  return { dir: options.dir, process, control: vz.control(options.dir, options.config) }
}

/** From now on these commands go wrong. */
export async function fault(vm: { dir: string }, faults: Record<string, string>): Promise<void> {
  await writeFile(join(vm.dir, "fault.json"), JSON.stringify(faults))
}

export async function machineOf(dir: string): Promise<Record<string, string>> {
  return JSON.parse(await readFile(join(dir, "machine.json"), "utf8")) as Record<string, string>
}
