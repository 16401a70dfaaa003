import type { Hypervisor } from "@stillframe/domain/instance"
import type { Vmm } from "./file-vmm/vmm.ts"

/**
 * The hypervisors that hold one VM per process and save it as files. Each adapter is loaded when it is first
 * asked for.
 */
export const vmms: ReadonlyMap<Hypervisor, () => Promise<Vmm>> = new Map([
  ["cloud-hypervisor", async () => (await import("./cloud-hypervisor/vmm.ts")).cloudHypervisor],
  ["firecracker", async () => (await import("./firecracker/vmm.ts")).firecracker],
  ["vz", async () => (await import("./vz/vmm.ts")).vz],
])
