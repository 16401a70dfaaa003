import { readFileSync } from "node:fs"
import { writeFile } from "node:fs/promises"
import { dirname, join } from "node:path"
import type { Capture, CaptureRequest } from "@stillframe/hypervisors/capture"
import type { VmControl } from "@stillframe/hypervisors/file-vmm/vm-control"
import { linkFile } from "@stillframe/hypervisors/files/link-files"
import type { CapturedMemory, Hypervisor, HypervisorTools } from "@stillframe/hypervisors/hypervisor"
import { hypervisorOf } from "@stillframe/hypervisors/hypervisor-of"
import type { GuestConfig } from "@stillframe/hypervisors/launch-config"
import type { ProcessIdentity } from "@stillframe/hypervisors/process/processes"
import { vmms } from "@stillframe/hypervisors/vmms"
import { fakeBinary } from "@stillframe/testing/fake-binary"
import { storeIn } from "./laid-disks.ts"
import { heartbeat, never, untilTicks, type Ground } from "./test-vm.ts"

export const hosted = ["cloud-hypervisor", "firecracker"] as const

export type HostedName = (typeof hosted)[number]

/** A VM as a host has it: laid out, launched and captured by way of its hypervisor's adapter. */
export interface HostedVm {
  readonly dir: string
  readonly config: GuestConfig
  readonly hypervisor: Hypervisor
  readonly process: ProcessIdentity
  readonly control: VmControl
}

export interface HostedOptions {
  readonly tools?: Partial<HypervisorTools>
  readonly config?: Partial<GuestConfig>
}

/** What a host has of a stand-in, in a folder that every user may walk to. */
export async function hostedTools(name: HostedName, folder: string): Promise<HypervisorTools> {
  const version = { "cloud-hypervisor": "v53.0", firecracker: "1.16.1" }[name]
  return { name, binary: await fakeBinary(folder, name, version), qemuImg: "qemu-img" }
}

/** A running guest that has ticked. */
export async function launchHosted(
  place: Ground,
  tools: HypervisorTools,
  { config: change }: HostedOptions = {},
): Promise<HostedVm> {
  const dir = await place.folder("vm")
  const config: GuestConfig = { memoryMib: 32, vcpus: 1, kernel: heartbeat, disks: [], ...change }
  const hypervisor = await hypervisorOf(tools)
  const rules = { hostPaths: [place.root, dirname(heartbeat)], dataDir: join(place.root, "data") }
  const disks = await hypervisor.prepare(config, { dir, rules, signal: never })
  const launch = { dir, config, disks, identity: "stillframe-test-vm", signal: never }
  const process = place.own(await hypervisor.launch(launch))
  await hypervisor.begin(dir)
  await untilTicks(dir, 3)
  return { dir, config, hypervisor, process, control: await controlOf(tools, dir, config) }
}

async function controlOf({ name }: HypervisorTools, dir: string, config: GuestConfig): Promise<VmControl> {
  const vmm = await vmms.get(name)?.()
  if (vmm === undefined) throw new Error(`no adapter for ${name}`)
  return vmm.control(dir, config)
}

export async function captureHosted(
  { dir, config, hypervisor }: Pick<HostedVm, "dir" | "config" | "hypervisor">,
  payload: string,
  change: Partial<CaptureRequest> = {},
): Promise<Capture> {
  const limits = { pauseExpectedMs: 30_000, pauseLimitMs: 30_000 }
  const request = { beforePause: () => {}, signal: never, ...limits, ...change }
  return hypervisor.capture({ dir, config }, { dir: payload, memoryName: "memory" }, request)
}

/** A VM from a payload, which runs and has ticked. */
export async function forkHosted(
  place: Ground,
  {
    dir: from,
    config,
    hypervisor,
    tools,
  }: Omit<HostedVm, "process" | "control"> & { tools: HypervisorTools },
  { payload, captured }: { payload: string; captured: Capture },
): Promise<HostedVm> {
  const linking = { config, store: storeIn(place), signal: never }
  await hypervisor.keep(captured.disks, { ...linking, from, dir: payload })
  const dir = await place.folder("fork")
  await hypervisor.bring(captured.disks, { ...linking, from: payload, dir })
  const memory: CapturedMemory = {
    stream: async function* () {},
    place: (path) => linkFile(join(payload, "memory"), path, never),
    state: {
      dir: payload,
      names: captured.files.filter(({ role }) => role === "state").map(({ name }) => name),
    },
  }
  const disks = await hypervisor.top(captured.disks, { dir, signal: never })
  const launch = { dir, config, disks, identity: "stillframe-test-fork", signal: never, memory }
  const process = place.own(await hypervisor.restore(launch))
  await hypervisor.begin(dir)
  await untilTicks(dir, 3)
  return { dir, config, hypervisor, process, control: await controlOf(tools, dir, config) }
}

/** What goes wrong with its saves from now on, in the words of each stand-in. */
export async function failSaves(
  { dir }: Pick<HostedVm, "dir">,
  name: HostedName,
  how: "full" | "cut_memory" | "cut_state",
): Promise<void> {
  const file = { full: "memory-ranges", cut_memory: "memory-ranges-silently", cut_state: "state.json" }[how]
  const faults =
    name === "firecracker"
      ? { save: how === "full" ? "enospc_memory" : how }
      : { "vm.snapshot": { does: "full", file } }
  await writeFile(join(dir, "fault.json"), JSON.stringify(faults))
}

export function userOf({ pid }: ProcessIdentity): { uid: number; gid: number } {
  const status = readFileSync(`/proc/${pid}/status`, "utf8")
  const idOf = (kind: "Uid" | "Gid"): number =>
    Number(new RegExp(`^${kind}:\\s+(\\d+)`, "m").exec(status)?.[1])
  return { uid: idOf("Uid"), gid: idOf("Gid") }
}
