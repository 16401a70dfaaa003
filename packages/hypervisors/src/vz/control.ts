import { StillframeError } from "@stillframe/domain/errors"
import type { VmControl, VmState } from "../file-vmm/vm-control.ts"
import { assertWhole, saveMachine } from "./save.ts"
import { command, settledState, untilState, type Shim, type ShimCommand } from "./shim.ts"

/**
 * Errors after which the VM may be in the wanted state all the same: the answer was lost, or it was there
 * before.
 */
const mayBeSo: ReadonlySet<string> = new Set(["timeout", "hypervisor_failed"])

const ended: ReadonlySet<string> = new Set(["Shutdown", "Error"])

export function vzControl(shim: Shim): VmControl {
  return {
    state: async () => stateOf(await settledState(shim)),
    pause: async () => await change(shim, "vm.pause", "Paused"),
    resume: async () => await change(shim, "vm.resume", "Running"),
    save: async (dir, options) => await saveMachine(shim, dir, options),
    assertWhole,
  }
}

/** A refusal of the shim (`cannot pause VM`) for a VM that is paused already is success. */
async function change(shim: Shim, name: ShimCommand, wanted: "Paused" | "Running"): Promise<void> {
  try {
    await command(shim, name)
  } catch (error) {
    if (!(error instanceof StillframeError) || !mayBeSo.has(error.code)) throw error
    if ((await settledState(shim)) !== wanted) throw error
    return
  }
  // The answer only says that it was asked for: the state may be the old one for a while, and then one in
  // between.
  const state = await untilState(shim, (state) => state === wanted || ended.has(state))
  if (state !== wanted)
    throw new StillframeError("hypervisor_failed", `the VM is ${state} after ${name}; start it again`)
}

function stateOf(word: string): VmState {
  return word === "Running" ? "running" : word === "Paused" ? "paused" : "other"
}
