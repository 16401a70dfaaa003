import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { endProcess, processAlive, type ProcessIdentity } from "../process/processes.ts"
import { call, vmState } from "./api.ts"
import { sendCtrlAltDel } from "./requests.ts"

const pollMs = 20
/** A VM that is being saved answers later than anyone wants to wait who ends it. */
const answerTimeoutMs = 5_000

/**
 * A guest is asked by the keys Ctrl, Alt and Delete, which only x86 has; a paused one can't hear them.
 * Firecracker's API has no end.
 */
export async function stopFirecracker(
  dir: string,
  vm: ProcessIdentity,
  { guestMs, processMs, signal }: { guestMs: number; processMs: number; signal: AbortSignal },
): Promise<void> {
  try {
    if ((await vmState(dir, answerTimeoutMs)) === "running") {
      await call(dir, sendCtrlAltDel, answerTimeoutMs)
      await endsWithin(vm, guestMs, signal)
    }
  } catch (error) {
    // An API that does not answer is no reason to let the VM run on.
    if (!(error instanceof StillframeError) || error.code === "cancelled") throw error
  }
  await endProcess(vm, { graceMs: processMs })
}

async function endsWithin(vm: ProcessIdentity, guestMs: number, signal: AbortSignal): Promise<void> {
  for (const end = performance.now() + guestMs; performance.now() < end; await delay(pollMs)) {
    if (!(await processAlive(vm))) return
    if (signal.aborted) throw new StillframeError("cancelled", "the stop was cancelled")
  }
}
