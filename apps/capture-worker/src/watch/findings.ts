import { inTransaction } from "@stillframe/db/client"
import { appendInstanceEvent } from "@stillframe/db/events/events"
import { recordFound, type FoundVm } from "@stillframe/db/instances/instances"
import { isUntrusted, type Seen, type StandstillDeps, type Vm } from "./see-standstill.ts"

/** A busy main loop answers late, and a VM is not called silent for that. */
const silentMs = 10_000

const silence =
  "the VM's hypervisor does not answer: its process is stopped or hangs, or, for an attached VM, another program holds its monitor; let the process go on or end that program, or stop the instance"

/** Tells the register how a VM was found at each look. */
export interface Findings {
  /** A silent VM is recorded once it has been silent at every look for 10 s. */
  record(seen: Seen): Promise<void>
}

export function openFindings(deps: StandstillDeps, vm: Vm): Findings {
  let silentSince: number | undefined
  return {
    async record(seen) {
      if (seen === "busy") return
      if (seen !== "silent") silentSince = undefined
      else silentSince ??= performance.now()
      if (silentSince !== undefined && performance.now() < silentSince + silentMs) return
      await record(deps, vm, seen)
    },
  }
}

async function record(
  { db, committed, log }: StandstillDeps,
  vm: Vm,
  seen: Exclude<Seen, "busy">,
): Promise<void> {
  const changed = await inTransaction(db, async (tx) => {
    const instance = await recordFound(tx, vm, foundAs(seen))
    if (instance !== undefined) await appendInstanceEvent(tx, "instance.state_changed", instance)
    return instance
  })
  if (changed === undefined) return
  committed()
  const status = statusOf(seen)
  log.warn({ instanceId: vm.id, status }, "a VM stopped, resumed or fell silent without a request")
}

function statusOf(seen: Exclude<Seen, "busy">): string {
  if (typeof seen === "string") return seen
  return isUntrusted(seen) ? "untrusted" : seen.status
}

function foundAs(seen: Exclude<Seen, "busy">): FoundVm {
  if (seen === "running") return { state: "Running" }
  if (seen === "silent") return { state: "Unknown", reason: silence }
  if (isUntrusted(seen)) return { state: "Unknown", reason: seen.untrusted }
  return { state: "Paused", reason: seen.reason }
}
