import type { Hypervisor } from "@stillframe/domain/instance"
import type { Vmm } from "@stillframe/hypervisors/vmm"
import { vmms } from "@stillframe/hypervisors/vmms"
import { vzOn } from "@stillframe/hypervisors/vz/vmm"
import { mac } from "../hypervisors/mac.ts"

/** As `NODE_OPTIONS` of a process: for it this host is a Mac, where the stand-in of the shim runs. */
export const vzOnThisHost = `--import ${import.meta.url}`

;(vmms as Map<Hypervisor, Vmm>).set("vz", vzOn({ host: mac }))
