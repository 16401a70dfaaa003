import { StillframeError } from "@stillframe/domain/errors"
import type { AttachedVms } from "./attached.ts"
import type { Hypervisor, HypervisorTools } from "./hypervisor.ts"
import { vmms } from "./vmms.ts"

/**
 * How VMs of a hypervisor are handled. An adapter is loaded when it is first asked for: a process that
 * carries out one operation needs only one. Throws `not_supported` for a hypervisor that this program cannot
 * drive.
 */
export async function hypervisorOf(tools: HypervisorTools): Promise<Hypervisor> {
  if (tools.name === "qemu") {
    const { qemuHypervisor } = await loadQemu()
    return qemuHypervisor(tools)
  }
  const load = vmms.get(tools.name)
  if (load !== undefined) {
    const [vmm, { vmmHypervisor }] = await Promise.all([load(), loadVmmHypervisor()])
    return vmmHypervisor(vmm, tools)
  }
  throw new StillframeError("not_supported", `VMs of ${tools.name} can't be driven by this version`)
}

/** How VMs that someone else started are handled: QEMU's only. */
export async function attachedVms(): Promise<AttachedVms> {
  return (await loadAttached()).attachedVms
}

const loadAttached = () => import("./qemu/attached/hypervisor.ts")

const loadQemu = () => import("./qemu/hypervisor.ts")

const loadVmmHypervisor = () => import("./file-vmm/hypervisor.ts")

/** Loads the adapter that most operations need, before the first one arrives. */
export async function loadMostUsed(): Promise<void> {
  await loadQemu()
}

/** Loads all adapters: resuming a paused VM must not depend on files that can be read at that moment. */
export async function loadAdapters(): Promise<void> {
  await Promise.all([
    loadQemu(),
    loadAttached(),
    loadVmmHypervisor(),
    ...Array.from(vmms.values(), (load) => load()),
  ])
}
