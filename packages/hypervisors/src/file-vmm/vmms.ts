import type { Hypervisor } from "@stillframe/domain/instance"
import { cloudHypervisor } from "../cloud-hypervisor/vmm.ts"
import { firecracker } from "../firecracker/vmm.ts"
import { vz } from "../vz/vmm.ts"
import type { Vmm } from "./vmm.ts"

/** The hypervisors that hold one VM per process and save it as files. */
export const vmms: ReadonlyMap<Hypervisor, Vmm> = new Map<Hypervisor, Vmm>([
  ["cloud-hypervisor", cloudHypervisor],
  ["firecracker", firecracker],
  ["vz", vz],
])
