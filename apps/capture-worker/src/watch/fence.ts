import { setTimeout as delay } from "node:timers/promises"
import { findVms } from "@stillframe/hypervisors/process/find-vms"
import type { ProcessIdentity } from "@stillframe/hypervisors/process/processes"
import { watchPid } from "@stillframe/hypervisors/process/watch-pid"
import type { VmEnd, Watch } from "@stillframe/hypervisors/watch"
import { identityOf } from "../host/vm-identity.ts"
import { openFindings } from "./findings.ts"
import type { StandstillDeps, Vm } from "./see-standstill.ts"

/** A QEMU that ends closes its monitor first, and then writes out what its guest has written. */
const endingMs = 5_000
const endPollMs = 20
const retryMs = 1_000

const closedEarly =
  "the VM's process closed its monitor and runs on; its guest may have escaped the VM, so stop the instance"

interface HeldWatch {
  readonly ended: Promise<VmEnd>
  close(): void
}

/** A VM's watch that ends when its process does, whatever its hypervisor says. */
export function withTrueEnd(
  deps: StandstillDeps,
  vm: Vm,
  {
    watch,
    followed,
    known,
    stopping,
  }: {
    watch: Pick<Watch, "breach">
    followed: HeldWatch
    known: ProcessIdentity | undefined
    stopping: AbortSignal
  },
): HeldWatch {
  const closed = new AbortController()
  const signal = AbortSignal.any([closed.signal, stopping])
  const ended = async (): Promise<VmEnd> => {
    const end = await followed.ended
    try {
      return await trueEnd(deps, vm, { end, known, breach: watch.breach?.(), signal })
    } catch (error) {
      if (signal.aborted) return never
      throw error
    }
  }
  return {
    ended: ended(),
    close() {
      closed.abort()
      followed.close()
    },
  }
}

const never = new Promise<never>(() => {})

interface EndedWatch {
  readonly end: VmEnd
  /** The VM's process as the register named it: one that lies can take its identity off its command line. */
  readonly known: ProcessIdentity | undefined
  /** Why the hypervisor is not believed any more. */
  readonly breach: string | undefined
  readonly signal: AbortSignal
}

/**
 * Resolves with a VM's end once its process has ended. A process that runs on though its monitor has ended is
 * fenced: the instance reads `Unknown` with the reason, which refuses all but `stop` and `DELETE`, and its
 * monitor is not opened again by this worker's watch. Rejects when `signal` is aborted.
 */
async function trueEnd(
  deps: StandstillDeps,
  vm: Vm,
  { end, known, breach, signal }: EndedWatch,
): Promise<VmEnd> {
  const found = await findVms(identityOf({ clusterId: deps.clusterId, instanceId: vm.id }))
  const processes = known === undefined ? found : [known, ...found]
  const grace = AbortSignal.timeout(breach === undefined ? endingMs : 0)
  if (await haveEnded(processes, AbortSignal.any([signal, grace]))) return end
  signal.throwIfAborted()
  await fence(deps, vm, { reason: breach ?? closedEarly, signal })
  await haveEnded(processes, signal)
  signal.throwIfAborted()
  return breach === undefined ? end : "gone"
}

/** False when `signal` came first. */
async function haveEnded(processes: readonly ProcessIdentity[], signal: AbortSignal): Promise<boolean> {
  try {
    for (const process of processes) await watchPid(process, signal, endPollMs)
    return true
  } catch (error) {
    if (signal.aborted) return false
    throw error
  }
}

async function fence(
  deps: StandstillDeps,
  vm: Vm,
  { reason, signal }: { reason: string; signal: AbortSignal },
): Promise<void> {
  deps.log.error({ instanceId: vm.id, reason }, "fenced a VM whose hypervisor broke its protocol")
  const findings = openFindings(deps, vm)
  for (;;) {
    try {
      return await findings.record({ untrusted: reason })
    } catch (err) {
      deps.log.warn({ err, instanceId: vm.id }, "could not record that a VM is fenced")
      await delay(retryMs, undefined, { signal })
    }
  }
}
