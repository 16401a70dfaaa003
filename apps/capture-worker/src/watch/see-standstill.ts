import { setTimeout as delay } from "node:timers/promises"
import type { OwnedDatabase } from "@stillframe/db/client"
import type { InstanceRow } from "@stillframe/db/instances/instances"
import { StillframeError } from "@stillframe/domain/errors"
import type { Standing, Standstill } from "@stillframe/hypervisors/watch"
import type { Logger } from "@stillframe/runtime/logger"
import { generationDir, instanceDir } from "@stillframe/storage/layout"
import { freeBytes } from "@stillframe/storage/space"
import { readPauseRecord } from "../pause/pause-record.ts"
import { holdVmLock } from "../pause/vm-lock.ts"

/** Between two tries to let a VM go on that stops again: from the first, doubled up to the last. */
const retryMs = { first: 1_000, last: 60_000 } as const
const answerMs = 2_000
/** A VM whose write fails again stops within this, as a rule. */
const stopsAgainMs = 250

export interface StandstillDeps {
  readonly db: OwnedDatabase
  readonly clusterId: string
  readonly config: { readonly dataDir: string; readonly resumeRoomBytes: number }
  readonly committed: () => void
  readonly log: Logger
}

export type Vm = Pick<InstanceRow, "id" | "generation">

/**
 * `busy`: an operation is at work on the VM. `silent`: its hypervisor does not answer. `untrusted`: why it is
 * not believed.
 */
export type Seen = "busy" | "silent" | "running" | Standstill | { readonly untrusted: string }

/**
 * Gives what looks at a VM while no operation is at work on it; one that can go on is told so, and looked at
 * again.
 */
export function openSight(deps: StandstillDeps, vm: Vm, watch: Standing): () => Promise<Seen> {
  const resumption = resumptions(deps, vm)
  return () => seeAndResume(deps, vm, { watch, resumption })
}

async function seeAndResume(
  { clusterId, config, log }: StandstillDeps,
  vm: Vm,
  { watch, resumption }: { watch: Standing; resumption: Resumption },
): Promise<Seen> {
  const lock = await holdVmLock({ clusterId, instanceId: vm.id }, 0).catch((error: unknown) => {
    if (!(error instanceof StillframeError) || error.code !== "conflict") throw error
  })
  if (lock === undefined) return "busy"
  await using _lock = lock
  if ((await readPauseRecord(instanceDir(config.dataDir, vm.id))) !== undefined) return "busy"
  const seen = await look(watch)
  if (seen === "silent" || seen === "busy" || isUntrusted(seen)) return seen
  if (seen === "running") {
    resumption.noteRunning()
    return seen
  }
  if (!seen.endsWithWrites || !(await resumption.isDue())) return seen
  await watch.resume()
  log.info({ instanceId: vm.id, status: seen.status }, "let a VM repeat its failed writes")
  await delay(stopsAgainMs)
  return look(watch)
}

/** A hypervisor that does not answer must not keep operations from the VM's lock. */
async function look(watch: Standing): Promise<Seen> {
  const stop = new AbortController()
  const late = delay(answerMs, "silent" as const, { signal: stop.signal })
  const seen = watch.look().then((standstill) => standstill ?? "running")
  try {
    return await Promise.race([seen, late])
  } catch (error) {
    if (!(error instanceof StillframeError)) throw error
    if (error.code === "hypervisor_silent") return "silent"
    if (error.code === "hypervisor_untrusted") return { untrusted: error.message }
    throw error
  } finally {
    stop.abort()
    // The loser of the race rejects later, when nothing waits for it.
    late.catch(() => {})
    seen.catch(() => {})
  }
}

export function isUntrusted(seen: Seen): seen is { readonly untrusted: string } {
  return typeof seen === "object" && "untrusted" in seen
}

interface Resumption {
  /** True when there is room and the last try was long enough ago; this counts as the next try. */
  isDue(): Promise<boolean>
  noteRunning(): void
}

function resumptions({ config }: StandstillDeps, { id, generation }: Vm): Resumption {
  let waitMs: number = retryMs.first
  let triedAt = -Infinity
  return {
    async isDue() {
      if (performance.now() < triedAt + waitMs) return false
      const free = await freeBytes(generationDir(config.dataDir, id, generation))
      if (free < config.resumeRoomBytes) return false
      waitMs = triedAt === -Infinity ? retryMs.first : Math.min(waitMs * 2, retryMs.last)
      triedAt = performance.now()
      return true
    },
    noteRunning() {
      if (performance.now() > triedAt + retryMs.last) triedAt = -Infinity
    },
  }
}
