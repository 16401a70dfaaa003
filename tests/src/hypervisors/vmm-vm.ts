import { copyFile, link, mkdir, readdir, truncate, writeFile } from "node:fs/promises"
import { join } from "node:path"
import type { Disk } from "@stillframe/hypervisors/disks/disks"
import type { VmControl } from "@stillframe/hypervisors/file-vmm/vm-control"
import type { Vmm, VmmLaunch } from "@stillframe/hypervisors/file-vmm/vmm"
import type { GuestConfig } from "@stillframe/hypervisors/launch-config"
import type { ProcessIdentity } from "@stillframe/hypervisors/process/processes"
import { heartbeat, never, serial, untilTicks, type Ground } from "./test-vm.ts"

/** A hypervisor under test: the program that the suites run against, and its adapter. */
export interface TestVmm {
  vmm: Vmm
  binary: string
}

export interface VmmVm {
  dir: string
  config: GuestConfig
  disks: Disk[]
  process: ProcessIdentity
  control: VmControl
}

const diskBytes = 1024 ** 2

export const guest: GuestConfig = { memoryMib: 64, vcpus: 1, kernel: heartbeat, disks: [] }

/** What launches a heartbeat guest in an empty directory, with a writable disk and a read-only one. */
export async function launchOptions(dir: string, binary: string): Promise<VmmLaunch & { disks: Disk[] }> {
  await copyFile(heartbeat, join(dir, "kernel"))
  const disks = ["disk0.raw", "disk1.raw"].map((file, index) => ({
    readonly: index === 1,
    virtualSize: diskBytes,
    layers: [{ file, format: "raw" as const }],
    sources: [],
  }))
  for (const { layers } of disks) {
    await writeFile(join(dir, layers[0]?.file ?? ""), "")
    await truncate(join(dir, layers[0]?.file ?? ""), diskBytes)
  }
  return { dir, binary, config: guest, disks, identity: "stillframe-test-vm", signal: never }
}

/** A running guest that has ticked. */
export async function startVm(place: Ground, { vmm, binary }: TestVmm, name = "vm"): Promise<VmmVm> {
  const options = await launchOptions(await place.folder(name), binary)
  const process = place.own(await vmm.launch(options))
  await vmm.begin(options.dir, options.config)
  await untilTicks(options.dir, 3)
  return { ...options, process, control: vmm.control(options.dir, options.config) }
}

export interface VmmSave {
  dir: string
  /** What the guest had printed when it stood still. */
  printed: string
}

/** Saves a VM, which is paused afterwards. */
export async function saveVm(place: Ground, { dir, control }: VmmVm, name = "save"): Promise<VmmSave> {
  await control.pause()
  const target = await place.folder(name)
  await control.save(target, { signal: never })
  return { dir: target, printed: serial(dir) }
}

/** What restores a save in a directory of its own, which gets further names of the files that were saved. */
export async function restoreOptions(place: Ground, binary: string, save: VmmSave, name: string) {
  const options = await launchOptions(await place.folder(name), binary)
  await mkdir(join(options.dir, "saved"))
  for (const file of await readdir(save.dir))
    await link(join(save.dir, file), join(options.dir, "saved", file))
  return { ...options, saved: "saved" }
}

/** A second VM from a save, which runs and has ticked. */
export async function forkVm(
  place: Ground,
  { vmm, binary }: TestVmm,
  save: VmmSave,
  name: string,
): Promise<VmmVm> {
  const options = await restoreOptions(place, binary, save, name)
  const process = place.own(await vmm.restore(options))
  await vmm.begin(options.dir, options.config)
  await untilTicks(options.dir, 3)
  return { ...options, process, control: vmm.control(options.dir, options.config) }
}
