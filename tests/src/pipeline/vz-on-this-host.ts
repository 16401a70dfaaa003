import type { Hypervisor } from "@stillframe/domain/instance"
import type { Vmm } from "@stillframe/hypervisors/file-vmm/vmm"
import { vmms } from "@stillframe/hypervisors/vmms"
import { vzOn } from "@stillframe/hypervisors/vz/vmm"
import { mac } from "../hypervisors/mac.ts"

// For a process that imports this before its own program, this host is a Mac, where the stand-in of the shim
// runs.
;(vmms as Map<Hypervisor, () => Promise<Vmm>>).set("vz", () => Promise.resolve(vzOn({ host: mac })))
