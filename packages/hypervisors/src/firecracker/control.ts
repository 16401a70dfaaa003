import type { VmControl, VmState } from "../file-vmm/vm-control.ts"
import type { GuestConfig } from "../launch-config.ts"
import { call, deadlineMs, isTimeout, vmState } from "./api.ts"
import { checkSaved } from "./check-saved.ts"
import { setState } from "./requests.ts"
import { saveVm } from "./save.ts"

/** `withinMs`: the deadline of each call; for tests, which do not want to wait for it. */
export function firecrackerControl(
  dir: string,
  config: GuestConfig,
  withinMs: number = deadlineMs(config),
): VmControl {
  return {
    state: async () => await vmState(dir, withinMs),
    pause: async () => await bring(dir, "Paused", "paused", withinMs),
    resume: async () => await bring(dir, "Resumed", "running", withinMs),
    save: async (saveDir, options) => await saveVm({ ...options, vmDir: dir, dir: saveDir, withinMs }),
    assertWhole: async (saveDir) => await checkSaved(saveDir, config.memoryMib),
  }
}

/** Firecracker takes what is so already for done. */
async function bring(
  dir: string,
  state: "Paused" | "Resumed",
  wanted: VmState,
  withinMs: number,
): Promise<void> {
  try {
    await call(dir, setState(state), withinMs)
  } catch (error) {
    if (!isTimeout(error)) throw error
    // It hears the question only when it is done with what came before.
    if ((await vmState(dir, withinMs)) !== wanted) throw error
  }
}
