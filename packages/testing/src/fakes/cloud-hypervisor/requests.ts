import { readFileSync } from "node:fs"
import { done, type Answer } from "./answer.ts"
import type { Fault } from "./faults.ts"
import { restore } from "./restore.ts"
import { snapshot } from "./snapshot.ts"
import type { FakeVmm, VmConfig } from "./vmm.ts"

type Body = Record<string, unknown>

interface KnownRequest {
  readonly method: "GET" | "PUT"
  readonly takesBody: boolean
  readonly carryOut: (vmm: FakeVmm, body: Body, fault: Fault | undefined) => Answer | Promise<Answer>
}

const get = (carryOut: KnownRequest["carryOut"]): KnownRequest => ({
  method: "GET",
  takesBody: false,
  carryOut,
})
const put = (carryOut: KnownRequest["carryOut"]): KnownRequest => ({
  method: "PUT",
  takesBody: false,
  carryOut,
})
const putBody = (carryOut: KnownRequest["carryOut"]): KnownRequest => ({
  method: "PUT",
  takesBody: true,
  carryOut,
})

/** What the API serves, by the last part of the path. */
export const requests: Readonly<Record<string, KnownRequest | undefined>> = {
  "vmm.ping": get(ping),
  "vm.info": get(info),
  "vm.create": putBody(create),
  "vm.boot": put(boot),
  "vm.pause": put(pause),
  "vm.resume": put(resume),
  "vm.snapshot": putBody(snapshot),
  "vm.restore": putBody(restore),
  "vm.power-button": put(powerButton),
  "vm.shutdown": put(shutdown),
  "vmm.shutdown": put(() => ({ ...done, exits: true })),
}

function ping(vmm: FakeVmm): Answer {
  const version = `${vmm.version.slice(1)}.0`
  const answer = { build_version: vmm.version, version, pid: process.pid, features: ["kvm"] }
  return { status: 200, body: JSON.stringify(answer) }
}

function info(vmm: FakeVmm): Answer {
  const { config, state } = vmm
  if (config === undefined)
    return vmm.refused(["Error from API", "The VM info is not available", "VM is not created"])
  const answer = { config, state, memory_actual_size: config.memory.size, device_tree: null }
  return { status: 200, body: vmm.configText(answer) }
}

function create(vmm: FakeVmm, body: Body): Answer {
  const failed = ["Error from API", "The VM could not be created"]
  if (vmm.config !== undefined) return vmm.refused([...failed, "VM is already created"])
  vmm.config = withDefaults(body)
  return done
}

/** Members that it does not know are left out without a word. */
function withDefaults(body: Body): VmConfig {
  const disks = body["disks"] as { path: string }[] | undefined
  return {
    cpus: { boot_vcpus: 1, max_vcpus: 1, kvm_hyperv: false },
    memory: { size: 512 * 1024 ** 2 },
    rng: { src: "/dev/urandom", iommu: false },
    console: { file: null, mode: "Tty", iommu: false, socket: null },
    net: null,
    fs: null,
    pmem: null,
    vsock: null,
    devices: null,
    iommu: false,
    watchdog: false,
    pvpanic: false,
    ...body,
    payload: { firmware: null, cmdline: null, initramfs: null, ...(body["payload"] as object) },
    disks:
      disks?.map((disk, index) => ({ readonly: false, direct: false, id: `_disk${index}`, ...disk })) ?? null,
    serial: { file: null, mode: "Null", socket: null, ...(body["serial"] as object) },
  } as unknown as VmConfig
}

async function boot(vmm: FakeVmm): Promise<Answer> {
  const failed = ["Error from API", "The VM could not boot"]
  const { config } = vmm
  if (config === undefined) return vmm.refused([...failed, "VM is not created"])
  try {
    vmm.guest = await vmm.open(config)
    if (!isBootable(readFileSync(config.payload?.kernel ?? "")))
      return vmm.refused([
        ...failed,
        "Cannot load the kernel into memory",
        "Kernel Loader: failed to load bzImage kernel image",
      ])
  } catch (error) {
    vmm.close()
    return vmm.refused([...failed, (error as Error).message])
  }
  vmm.guest.fill()
  vmm.guest.run()
  vmm.state = "Running"
  return done
}

/** An ELF, or what has the header of a bzImage. */
function isBootable(kernel: Buffer): boolean {
  return (
    kernel.subarray(0, 4).equals(Buffer.from("\x7fELF", "latin1")) ||
    kernel.toString("latin1", 0x202, 0x206) === "HdrS"
  )
}

function pause(vmm: FakeVmm, _body: Body, fault: Fault | undefined): Answer {
  const failed = ["Error from API", "The VM could not be paused"]
  if (vmm.guest === undefined) return vmm.refused([...failed, "VM is not running"])
  const failing = [...failed, "Cannot pause VM", "Failed to pause migratable component"]
  if (vmm.state === "Paused") return vmm.refused([...failing, invalid("Paused")])
  vmm.guest.stop()
  if (fault?.does === "half_pause") return vmm.refused([...failing, "Error pausing a device"])
  vmm.state = "Paused"
  return done
}

function resume(vmm: FakeVmm): Answer {
  const failed = ["Error from API", "The VM could not resume"]
  if (vmm.guest === undefined) return vmm.refused([...failed, "VM is not running"])
  const failing = [...failed, "Cannot resume VM", "Failed to resume migratable component"]
  if (vmm.state === "Running") return vmm.refused([...failing, invalid("Running")])
  vmm.guest.run()
  vmm.state = "Running"
  return done
}

const invalid = (state: string): string => `Invalid transition: InvalidStateTransition(${state}, ${state})`

function powerButton(vmm: FakeVmm, _body: Body, fault: Fault | undefined): Answer {
  if (vmm.guest === undefined)
    return vmm.refused(["Error from API", "Error triggering power button", "VM is not running"])
  // The heartbeat guest hears no button.
  return fault?.does === "power_off" ? { ...done, exits: true } : done
}

function shutdown(vmm: FakeVmm): Answer {
  if (vmm.guest === undefined)
    return vmm.refused(["Error from API", "The VM could not shutdown", "VM is not running"])
  vmm.close()
  vmm.state = "Shutdown"
  return done
}
