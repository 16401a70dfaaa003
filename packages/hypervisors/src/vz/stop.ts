import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import type { Vmm } from "../file-vmm/vmm.ts"
import { endProcess, processAlive, type ProcessIdentity } from "../process/processes.ts"
import { command, type Shim } from "./shim.ts"

const pollMs = 20
/** A shim that is saving answers later than anyone who stops a VM would wait. */
const answerMs = 5_000

/** Presses the power button; the shim ends with its guest. One that does not is told to end, then ended. */
export async function stopVz(
  dir: string,
  vm: ProcessIdentity,
  { guestMs, processMs, signal }: Parameters<Vmm["stop"]>[2],
): Promise<void> {
  const shim = { dir, deadlineMs: answerMs }
  // The framework lets no one press it on a paused machine, and a shim that says nothing may not run on for
  // that.
  if (await toldTo(shim, "vm.power-button")) {
    for (const end = performance.now() + guestMs; performance.now() < end; await delay(pollMs)) {
      if (!(await processAlive(vm))) return
      if (signal.aborted) throw new StillframeError("cancelled", "the stop was cancelled")
    }
  }
  await toldTo(shim, "vmm.shutdown")
  for (const end = performance.now() + processMs; performance.now() < end; await delay(pollMs)) {
    if (!(await processAlive(vm))) return
  }
  await endProcess(vm, { graceMs: 0 })
}

async function toldTo(shim: Shim, name: "vm.power-button" | "vmm.shutdown"): Promise<boolean> {
  try {
    await command(shim, name)
    return true
  } catch (error) {
    if (!(error instanceof StillframeError)) throw error
    return false
  }
}
