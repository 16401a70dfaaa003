import type { Hypervisor } from "@stillframe/domain/instance"
import { firecracker } from "./firecracker/vmm.ts"
import type { Vmm } from "./vmm.ts"

/** The hypervisors that hold one VM per process and save it as files. */
export const vmms: ReadonlyMap<Hypervisor, Vmm> = new Map([["firecracker", firecracker]])
