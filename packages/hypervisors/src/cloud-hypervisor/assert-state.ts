import { StillframeError } from "@stillframe/domain/errors"
import type { VmState } from "../file-vmm/vm-control.ts"
import { vmState } from "./control.ts"
import { vmFiles } from "./files.ts"

/** Reads back that a VM is what it was made to be: some versions carry out less than they are asked for. */
export async function assertState(dir: string, wanted: VmState, deadlineMs: number): Promise<void> {
  const state = await vmState(dir, deadlineMs)
  if (state === wanted) return
  const now = state === "other" ? "neither running nor paused" : state
  throw new StillframeError(
    "hypervisor_failed",
    `the VM should be ${wanted} and is ${now}; look at its ${vmFiles.log}`,
  )
}
