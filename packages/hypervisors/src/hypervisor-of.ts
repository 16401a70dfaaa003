import { StillframeError } from "@stillframe/domain/errors"
import type { Hypervisor, HypervisorTools } from "./hypervisor.ts"
import { qemuHypervisor } from "./qemu/hypervisor.ts"
import { vmmHypervisor } from "./vmm-hypervisor.ts"
import { vmms } from "./vmms.ts"

/** How VMs of a hypervisor are handled. Throws `not_supported` for one that this program can't drive. */
export function hypervisorOf(tools: HypervisorTools): Hypervisor {
  if (tools.name === "qemu") return qemuHypervisor(tools)
  const vmm = vmms.get(tools.name)
  if (vmm !== undefined) return vmmHypervisor(vmm, tools)
  throw new StillframeError("not_supported", `VMs of ${tools.name} can't be driven by this version`)
}
