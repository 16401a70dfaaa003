import { setTimeout as delay } from "node:timers/promises"
import { toStillframeError } from "@stillframe/domain/errors"
import { attachedVms } from "@stillframe/hypervisors/hypervisor-of"
import { watchPid } from "@stillframe/hypervisors/process/watch-pid"
import type { Standing } from "@stillframe/hypervisors/watch"
import { instanceDir } from "@stillframe/storage/layout"
import type { CaptureWorkerConfig } from "../config.ts"
import type { AttachedInstance } from "../executor/attached-instance.ts"
import { holdVmLock } from "../pause/vm-lock.ts"

/** A captor that has lost its VM gives up within this. */
const lockWaitMs = 60_000
const retryMs = 1_000

/**
 * By its process: its monitor may be the only one, and is its owner's, so that it is opened for a look and
 * closed again.
 */
export function watchAttached(vm: AttachedInstance): Standing & {
  readonly ended: Promise<"ended_by_owner">
  close(): void
} {
  const stop = new AbortController()
  const ended = async (): Promise<"ended_by_owner"> => {
    for (;;) {
      try {
        await watchPid(vm.process, stop.signal)
        return "ended_by_owner"
      } catch {
        // A closed watch reports nothing; a look that failed for lack of a descriptor is repeated.
        await (stop.signal.aborted ? never : delay(retryMs))
      }
    }
  }
  return {
    ended: ended(),
    async look() {
      const standstill = await (await attachedVms()).of(vm).look()
      // Its owner may want it to stand still.
      return standstill && { ...standstill, endsWithWrites: false }
    },
    resume: async () => {},
    close: () => stop.abort(),
  }
}

const never = new Promise<never>(() => {})

/**
 * Brings home what overlays of ours hold of the disks of an attached VM that has ended. Resolves with what
 * stands against it, for the person who has to decide.
 */
export async function commitOverlays(
  vm: { clusterId: string; instanceId: string },
  { dataDir, qemuImg }: Pick<CaptureWorkerConfig, "dataDir" | "qemuImg">,
  signal: AbortSignal,
): Promise<string | undefined> {
  try {
    await using _lock = await holdVmLock(vm, lockWaitMs)
    await (await attachedVms()).commitOverlays(instanceDir(dataDir, vm.instanceId), { qemuImg, signal })
    return undefined
  } catch (error) {
    return toStillframeError(error).message
  }
}
