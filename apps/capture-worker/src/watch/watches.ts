import { setTimeout as delay } from "node:timers/promises"
import type { OwnedDatabase } from "@stillframe/db/client"
import { StillframeError } from "@stillframe/domain/errors"
import type { Hypervisor } from "@stillframe/domain/instance"
import { openTrouble } from "@stillframe/domain/postgres/outage"
import { hypervisorOf } from "@stillframe/hypervisors/hypervisor-of"
import { findVms } from "@stillframe/hypervisors/process/find-vms"
import type { Logger } from "@stillframe/runtime/logger"
import { generationDir } from "@stillframe/storage/layout"
import type { Place } from "@stillframe/storage/places/place"
import type { CaptureWorkerConfig } from "../config.ts"
import { hostHypervisor, type HostHypervisor } from "../host/host-hypervisor.ts"
import { findRecorded, recordedProcess } from "../host/recorded-process.ts"
import { identityOf } from "../host/vm-identity.ts"
import { attachedInstance } from "../operations/attached-instance.ts"
import type { HostClock } from "../operations/host-clock.ts"
import { recordEnd, type End, type WatchedInstance } from "../operations/record-end.ts"
import { withTrueEnd } from "./fence.ts"
import { openFindings } from "./findings.ts"
import type { Seen } from "./see-standstill.ts"
import { withStandstills } from "./standstills.ts"
import { commitOverlays, watchAttached } from "./watch-attached.ts"

/** Watches the VMs of this host, and tells the register when one ends by itself. */
export interface Watches extends AsyncDisposable {
  start(instance: WatchedInstance): void
  /** For a VM that is about to be ended on purpose. */
  stop(instanceId: string): void
}

/** Like a launched VM's watch. */
interface HeldWatch {
  readonly ended: Promise<End>
  close(): void
}

const retryMs = 1_000

interface WatchDeps {
  readonly db: OwnedDatabase
  readonly clusterId: string
  readonly committed: () => void
  readonly log: Logger
  readonly hypervisors: ReadonlyMap<Hypervisor, Pick<HostHypervisor, "tools">>
  readonly home: Pick<Place, "identify">
  readonly clock: Pick<HostClock, "reading">
  readonly config: Pick<CaptureWorkerConfig, "dataDir" | "qemuImg" | "resumeRoomBytes" | "attachedLookMs">
}

export function watches(deps: WatchDeps): Watches {
  const { db, clusterId, config, committed, log } = deps
  const held = new Map<string, HeldWatch>()
  const recording = new Set<Promise<void>>()
  const stopping = new AbortController()

  async function hold(instance: WatchedInstance): Promise<void> {
    const dir = generationDir(config.dataDir, instance.id, instance.generation)
    const vm = attachedInstance(instance)
    const watch =
      vm === undefined
        ? await openWatch(deps, instance, { dir, stopping: stopping.signal, track })
        : withStandstills(deps, instance, {
            watch: watchAttached(vm),
            stopping: stopping.signal,
            track,
            everyMs: config.attachedLookMs,
          })
    if (stopping.signal.aborted) return watch?.close()
    if (watch !== undefined) held.set(instance.id, watch)
    void (watch?.ended ?? Promise.resolve<End>("gone")).then((end) => {
      held.delete(instance.id)
      track(record(instance, end))
    })
  }

  async function record(instance: WatchedInstance, end: End): Promise<void> {
    const obstacle =
      end === "ended_by_owner"
        ? await commitOverlays({ clusterId, instanceId: instance.id }, config, stopping.signal)
        : undefined
    // A commit that was broken off says nothing of the disks: the next worker goes on with it, and records
    // the end.
    if (obstacle !== undefined && stopping.signal.aborted) return
    const recorded = (): Promise<boolean> => recordEnd(db, instance, end, obstacle)
    for (; !(await recorded()); await delay(retryMs)) if (stopping.signal.aborted) return
    committed()
    log.info({ instanceId: instance.id, end }, "vm ended")
  }

  function track(work: Promise<void>): void {
    const tracked = work
      .catch((err: unknown) => log.error({ err }, "a vm is not watched any more"))
      .finally(() => recording.delete(tracked))
    recording.add(tracked)
  }

  return {
    start(instance) {
      if (!held.has(instance.id)) track(hold(instance))
    },
    stop(instanceId) {
      held.get(instanceId)?.close()
      held.delete(instanceId)
    },
    async [Symbol.asyncDispose]() {
      stopping.abort()
      for (const watch of held.values()) watch.close()
      await Promise.all(recording)
    },
  }
}

interface Watching {
  /** The VM's. */
  readonly dir: string
  readonly stopping: AbortSignal
  readonly track: (work: Promise<void>) => void
}

/** Undefined when the VM's process has ended, or the watches have been disposed of meanwhile. */
async function openWatch(
  deps: WatchDeps,
  instance: WatchedInstance,
  { dir, stopping, track }: Watching,
): Promise<HeldWatch | undefined> {
  const { hypervisors, log } = deps
  const trouble = openTrouble(log, { lost: `vm in ${dir} can't be watched yet` })
  const findings = openFindings(deps, instance)
  for (; !stopping.aborted; await delay(retryMs)) {
    try {
      const { tools } = hostHypervisor({ hypervisors }, instance.hypervisor)
      const watch = await (await hypervisorOf(tools)).watch(dir)
      const known = await findRecorded(recordedProcess(instance, deps.clock.reading()))
      const followed = withStandstills(deps, instance, { watch, stopping, track })
      return withTrueEnd(deps, instance, { watch, followed, known, stopping })
    } catch (error) {
      if (!(error instanceof StillframeError)) throw error
      const homeThere = await isThere(deps.home)
      if (error.code === "hypervisor_gone" && homeThere && (await hasEnded(deps, instance))) return undefined
      // The worker before this one may still be letting go of it.
      trouble.failed(error)
      const seen = asSeen(error, homeThere)
      if (seen !== undefined) await findings.record(seen).catch(trouble.failed)
    }
  }
  return undefined
}

/** A socket that is gone from a process that lives is a hypervisor that does not answer. */
function asSeen({ code, message }: StillframeError, homeThere: boolean): Seen | undefined {
  if (code === "hypervisor_untrusted") return { untrusted: message }
  return code === "hypervisor_silent" || (code === "hypervisor_gone" && homeThere) ? "silent" : undefined
}

/** Without its directory a VM cannot be watched, and may run all the same. */
async function isThere(home: WatchDeps["home"]): Promise<boolean> {
  // The watch of the directory tells of it.
  return home.identify().then(
    () => true,
    () => false,
  )
}

async function hasEnded(
  { clusterId, clock }: Pick<WatchDeps, "clusterId" | "clock">,
  instance: WatchedInstance,
): Promise<boolean> {
  const found = await findVms(identityOf({ clusterId, instanceId: instance.id }))
  const recorded = await findRecorded(recordedProcess(instance, clock.reading()))
  return found.length === 0 && recorded === undefined
}
