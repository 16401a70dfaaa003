import { StillframeError } from "@stillframe/domain/errors"
import { openTrouble } from "@stillframe/domain/postgres/outage"
import type { Standing } from "@stillframe/hypervisors/watch"
import { openBell } from "./bell.ts"
import { openFindings } from "./findings.ts"
import { openSight, type Seen, type StandstillDeps, type Vm } from "./see-standstill.ts"

/** A VM that stands still, or that an operation holds, is looked at again after this. */
const standingPollMs = 1_000
/** One that runs, where its hypervisor tells of changes, in case a word was lost or it has hung … */
const runningPollMs = 10_000
/** … and where it does not. */
const silentPollMs = 5_000

interface HeldWatch<End> extends Standing {
  readonly ended: Promise<End>
  close(): void
}

/**
 * A VM's watch that also follows, until it is closed or the VM ends, whether the VM stands still. `everyMs`:
 * of one whose monitor is its owner's, which is looked at as rarely as that and then for the first time.
 */
export function withStandstills<End>(
  deps: StandstillDeps,
  vm: Vm,
  {
    watch,
    stopping,
    track,
    everyMs,
  }: {
    watch: HeldWatch<End>
    stopping: AbortSignal
    track: (work: Promise<void>) => void
    everyMs?: number
  },
): Pick<HeldWatch<End>, "ended" | "close"> {
  const stop = new AbortController()
  void watch.ended.then(() => stop.abort())
  track(followStandstill(deps, vm, { watch, signal: AbortSignal.any([stop.signal, stopping]), everyMs }))
  return {
    ended: watch.ended,
    close() {
      stop.abort()
      watch.close()
    },
  }
}

/**
 * Tells the register when a VM stands still though nothing of ours has paused it, when its hypervisor does
 * not answer, and when it goes on; one that a full disk has stopped is let go on once there is room. Until
 * `signal` is aborted or the VM has ended.
 */
async function followStandstill(
  deps: StandstillDeps,
  vm: Vm,
  { watch, signal, everyMs }: { watch: Standing; signal: AbortSignal; everyMs: number | undefined },
): Promise<void> {
  const bell = openBell((ring) => watch.onChange?.(ring))
  const sight = openSight(deps, vm, watch)
  const findings = openFindings(deps, vm)
  const trouble = openTrouble(deps.log, { lost: `could not see or tell whether vm ${vm.id} stands still` })
  const runningMs = everyMs ?? (watch.onChange === undefined ? silentPollMs : runningPollMs)
  if (everyMs !== undefined) await bell.rung(everyMs, signal)
  while (!signal.aborted) {
    bell.silence()
    let seen: Seen = "busy"
    try {
      seen = await sight()
      await findings.record(seen)
      trouble.worked()
    } catch (error) {
      // The end of the process is told by its watch; anything else is looked at again.
      if (signal.aborted || (isGone(error) && everyMs === undefined)) break
      trouble.failed(error)
    }
    await bell.rung(seen === "running" ? runningMs : (everyMs ?? standingPollMs), signal)
  }
  bell.close()
}

function isGone(error: unknown): boolean {
  return error instanceof StillframeError && error.code === "hypervisor_gone"
}
