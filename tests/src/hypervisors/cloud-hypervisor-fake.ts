import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import { cloudHypervisor } from "@stillframe/hypervisors/cloud-hypervisor/vmm"
import { fakeBinary } from "@stillframe/testing/fake-binary"
import type { Ground } from "./test-vm.ts"
import type { TestVmm } from "./vmm-vm.ts"

export async function fakeVmm(place: Ground, version = "v53.0"): Promise<TestVmm> {
  return { vmm: cloudHypervisor, binary: await fakeBinary(place.root, "cloud-hypervisor", version) }
}

/** What the fake in this directory does wrong from now on, by request. */
export async function fail(dir: string, faults: Record<string, object>): Promise<void> {
  await writeFile(join(dir, "fault.json"), JSON.stringify(faults))
}
