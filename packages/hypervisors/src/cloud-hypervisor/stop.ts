import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { endProcess, processAlive, type ProcessIdentity } from "../process/processes.ts"
import { order } from "./api.ts"
import { vmState } from "./control.ts"

export interface StopOptions {
  readonly guestMs: number
  readonly processMs: number
  readonly signal: AbortSignal
}

const pollMs = 20
/** A VMM that is at a save answers nobody, and is ended all the same. */
const answerMs = 2_000

/**
 * Ends a VM: its guest is asked first (ACPI's power button), after `guestMs` the process, and after
 * `processMs` more it is killed. A guest that stands still is not asked. Throws `cancelled` while the guest
 * is waited for.
 */
export async function stopVm(
  dir: string,
  vm: ProcessIdentity,
  { guestMs, processMs, signal }: StopOptions,
): Promise<void> {
  let told = false
  try {
    if ((await pressPowerButton(dir)) && (await goneWithin(vm, guestMs, signal))) return
    await order(dir, "vmm.shutdown", { deadlineMs: answerMs })
    told = true
    if (await goneWithin(vm, processMs)) return
  } catch (error) {
    // A VMM that does not answer is no reason to let its VM run on.
    if (!(error instanceof StillframeError) || error.code === "cancelled") throw error
  }
  await endProcess(vm, { graceMs: told ? 0 : processMs })
}

/** False where the guest stands still and would not hear it. */
async function pressPowerButton(dir: string): Promise<boolean> {
  if ((await vmState(dir, answerMs)) !== "running") return false
  await order(dir, "vm.power-button", { deadlineMs: answerMs })
  return true
}

async function goneWithin(vm: ProcessIdentity, timeoutMs: number, signal?: AbortSignal): Promise<boolean> {
  for (const end = performance.now() + timeoutMs; performance.now() < end; await delay(pollMs)) {
    if (!(await processAlive(vm))) return true
    if (signal?.aborted) throw new StillframeError("cancelled", "the stop was cancelled")
  }
  return false
}
