import { setTimeout as delay } from "node:timers/promises"
import { inTransaction, type OwnedDatabase } from "@stillframe/db/client"
import { appendInstanceEvent } from "@stillframe/db/events"
import { advanceInstance, lockInstance, type InstanceRow } from "@stillframe/db/instances"
import { pendingStateOperation } from "@stillframe/db/operations"
import { StillframeError } from "@stillframe/domain/errors"
import { findVms } from "@stillframe/hypervisors/find-vms"
import { hypervisorOf } from "@stillframe/hypervisors/hypervisor-of"
import type { VmEnd, Watch } from "@stillframe/hypervisors/watch"
import { generationDir } from "@stillframe/storage/layout"
import { attachedInstance } from "./attached-instance.ts"
import { identityOf } from "./carry-out-launch.ts"
import type { CaptureWorkerConfig } from "./config.ts"
import { commitOverlays, watchAttached } from "./watch-attached.ts"
import { hostHypervisor, type Worker } from "./worker.ts"

/** Watches the VMs of this host, and tells the register when one ends by itself. */
export interface Watches extends AsyncDisposable {
  start(instance: WatchedInstance): void
  /** For a VM that is about to be ended on purpose. */
  stop(instanceId: string): void
}

type End = VmEnd | "ended_by_owner"

/** Like a launched VM's watch. */
interface HeldWatch {
  readonly ended: Promise<End>
  close(): void
}

type WatchedInstance = Pick<InstanceRow, "id" | "generation" | "hypervisor" | "attached">

const retryMs = 1_000

const endings: Readonly<Record<End, { state: "Shutdown" | "Stopped"; message: string }>> = {
  guest_shutdown: { state: "Shutdown", message: "the guest shut itself down" },
  guest_reset: { state: "Shutdown", message: "the guest reset itself" },
  guest_panicked: { state: "Shutdown", message: "the guest's kernel panicked" },
  ended_by_host: { state: "Stopped", message: "the VM's process was told to end by this host" },
  ended_by_owner: { state: "Stopped", message: "the VM's process, which its owner had started, has ended" },
  gone: {
    state: "Stopped",
    message: "the VM's process ended without a word; see its log in the instance's directory",
  },
}

type WatchDeps = Pick<Worker, "db" | "clusterId" | "hypervisors" | "home" | "committed" | "log"> & {
  readonly config: Pick<CaptureWorkerConfig, "dataDir" | "qemuImg">
}

export function watches({ db, clusterId, config, hypervisors, home, committed, log }: WatchDeps): Watches {
  const held = new Map<string, HeldWatch>()
  const recording = new Set<Promise<void>>()
  const stopping = new AbortController()

  async function hold(instance: WatchedInstance): Promise<void> {
    const dir = generationDir(config.dataDir, instance.id, instance.generation)
    const vm = attachedInstance(instance)
    const watch = vm === undefined ? await openWatch(dir, instance) : watchAttached(vm)
    if (stopping.signal.aborted) return watch?.close()
    if (watch !== undefined) held.set(instance.id, watch)
    void (watch?.ended ?? Promise.resolve<End>("gone")).then((end) => {
      held.delete(instance.id)
      track(record(instance, end))
    })
  }

  /** Undefined when the VM's process has ended, or this has been disposed of meanwhile. */
  async function openWatch(dir: string, { id, hypervisor }: WatchedInstance): Promise<Watch | undefined> {
    for (let told = false; !stopping.signal.aborted; await delay(retryMs)) {
      try {
        const { tools } = hostHypervisor({ hypervisors }, hypervisor)
        return await hypervisorOf(tools).watch(dir)
      } catch (error) {
        if (!(error instanceof StillframeError)) throw error
        if (error.code === "hypervisor_gone" && (await hasEnded(id))) return undefined
        // The worker before this one may still be letting go of it.
        if (!told) log.warn({ err: error, dir }, "vm can't be watched yet")
        told = true
      }
    }
    return undefined
  }

  /** False while its directory may only be away: without that a VM can't be watched, and may run all the same. */
  async function hasEnded(instanceId: string): Promise<boolean> {
    try {
      await home.identify()
    } catch {
      // Whoever watches the directory tells.
      return false
    }
    return (await findVms(identityOf({ clusterId, instanceId }))).length === 0
  }

  async function record(instance: WatchedInstance, end: End): Promise<void> {
    const obstacle =
      end === "ended_by_owner"
        ? await commitOverlays({ clusterId, instanceId: instance.id }, config, stopping.signal)
        : undefined
    for (; !(await recordEnd(db, instance, end, obstacle)); await delay(retryMs))
      if (stopping.signal.aborted) return
    committed()
    log.info({ instanceId: instance.id, end }, "vm ended")
  }

  function track(work: Promise<void>): void {
    const tracked = work
      .catch((err: unknown) => log.error({ err }, "end of a vm not recorded"))
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

/** False while an operation is under way that ends VMs: it says itself what the instance has become. */
async function recordEnd(
  db: OwnedDatabase,
  { id, generation }: WatchedInstance,
  end: End,
  obstacle: string | undefined,
): Promise<boolean> {
  const { state, message } = endings[end]
  return inTransaction(db, async (tx) => {
    const instance = await lockInstance(tx, id)
    if (instance?.state !== "Running" || instance.generation !== generation) return true
    if ((await pendingStateOperation(tx, id)) !== undefined) return false
    const ended = await advanceInstance(tx, id, state, {
      exit_message: obstacle === undefined ? message : `${message}; ${obstacle}`,
    })
    if (ended !== undefined) await appendInstanceEvent(tx, "instance.state_changed", ended)
    return true
  })
}
