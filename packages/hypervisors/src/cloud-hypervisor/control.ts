import { StillframeError } from "@stillframe/domain/errors"
import type { VmControl, VmState } from "../file-vmm/vm-control.ts"
import { logHasWhy } from "../refusal.ts"
import { order, readVm } from "./api.ts"
import { assertWhole } from "./assert-whole.ts"
import { saveVm } from "./save.ts"

const alreadyPaused = "InvalidStateTransition(Paused, Paused)"
const alreadyRunning = "InvalidStateTransition(Running, Running)"

/** One VM by the socket in its directory. Every answer may take `deadlineMs`. */
export function controlVm(dir: string, deadlineMs: number): VmControl {
  return {
    state: async () => await vmState(dir, deadlineMs),
    pause: async () => await pauseVm(dir, deadlineMs),
    resume: async () => await resumeVm(dir, deadlineMs),
    save: async (target, options) => await saveVm(dir, target, deadlineMs, options),
    assertWhole,
  }
}

export async function vmState(dir: string, deadlineMs: number): Promise<VmState> {
  const state = (await readVm(dir, deadlineMs))?.state
  if (state === "Running") return "running"
  return state === "Paused" ? "paused" : "other"
}

async function pauseVm(dir: string, deadlineMs: number): Promise<void> {
  try {
    await order(dir, "vm.pause", { deadlineMs, alreadySo: alreadyPaused })
  } catch (error) {
    if (error instanceof StillframeError && error.code === "hypervisor_failed")
      await releaseProcessors(dir, deadlineMs)
    if (!(await isSoLate(error, "paused", dir, deadlineMs))) throw error
  }
}

async function resumeVm(dir: string, deadlineMs: number): Promise<void> {
  try {
    await order(dir, "vm.resume", { deadlineMs, alreadySo: alreadyRunning })
  } catch (error) {
    if (!(await isSoLate(error, "running", dir, deadlineMs))) throw error
  }
}

/**
 * After a time-out nothing is known but by asking; and the question is heard only when what came before is
 * done.
 */
async function isSoLate(error: unknown, wanted: VmState, dir: string, deadlineMs: number): Promise<boolean> {
  if (!(error instanceof StillframeError) || error.code !== "timeout") return false
  return (await vmState(dir, deadlineMs)) === wanted
}

/**
 * A pause that fails at a device has stopped the processors already while the state goes on saying that they
 * run, and a resume believes the state. Only a pause that works leads back. Throws when that does not either.
 */
async function releaseProcessors(dir: string, deadlineMs: number): Promise<void> {
  if ((await vmState(dir, deadlineMs)) !== "running") return
  try {
    await order(dir, "vm.pause", { deadlineMs, alreadySo: alreadyPaused })
    await order(dir, "vm.resume", { deadlineMs, alreadySo: alreadyRunning })
  } catch (error) {
    if (!(error instanceof StillframeError)) throw error
    throw new StillframeError(
      error.code,
      `the VM's guest may stand still though its state says that it runs, and it could not be led back: stop the instance and start it again; ${logHasWhy}`,
      { cause: error, said: error.said ?? error.message },
    )
  }
}
