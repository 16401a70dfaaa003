import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import type { VmControl } from "../file-vmm/vm-control.ts"
import { logHasWhy } from "../refusal.ts"

/**
 * Resuming has a deadline of its own, whatever ended the work. A save that is still under way counts to its
 * own.
 */
const resumeMs = 30_000
const retryMs = 20
const lostMax = 2

/**
 * Makes a VM run, from whatever a dead or failed capture left. A VMM answers one after the other, so this
 * waits behind a save that is under way. Throws `timeout` when the VM does not run in the end, with its last
 * words in `said`, and `hypervisor_gone` when it could not be reached twice.
 */
export async function ensureRuns(control: VmControl): Promise<void> {
  const until = performance.now() + resumeMs
  let lost = 0
  for (let refusal: string | undefined; ; await delay(retryMs)) {
    try {
      await control.resume()
      if ((await control.state()) === "running") return
    } catch (error) {
      if (!(error instanceof StillframeError)) throw error
      // A lost connection is no proof of a dead VM.
      const again = error.code === "hypervisor_gone" ? ++lost < lostMax : worthAnotherTry.has(error.code)
      if (!again) throw error
      refusal = error.said ?? error.message
    }
    if (performance.now() > until)
      throw new StillframeError("timeout", `the VM did not resume; ${logHasWhy}`, { said: refusal })
  }
}

const worthAnotherTry: ReadonlySet<string> = new Set(["hypervisor_failed", "timeout"])

/**
 * Runs work on a paused VM, which a failure resumes. A VM that stays paused is worse news than that failure;
 * one that is gone is not.
 */
export async function orResume<T>(work: () => Promise<T>, resume: () => Promise<unknown>): Promise<T> {
  try {
    return await work()
  } catch (failure) {
    try {
      await resume()
    } catch (error) {
      if (!(error instanceof StillframeError) || error.code !== "hypervisor_gone") throw error
    }
    throw failure
  }
}
