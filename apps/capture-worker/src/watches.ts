import { setTimeout as delay } from "node:timers/promises"
import { inTransaction, type OwnedDatabase } from "@stillframe/db/client"
import { appendInstanceEvent } from "@stillframe/db/events"
import { advanceInstance, lockInstance } from "@stillframe/db/instances"
import { pendingStateOperation } from "@stillframe/db/operations"
import { StillframeError } from "@stillframe/domain/errors"
import { watchQemu, type VmEnd, type Watch } from "@stillframe/hypervisors/watch"
import type { Logger } from "@stillframe/runtime/logger"
import { generationDir } from "@stillframe/storage/layout"

/** Watches the VMs of this host, and tells the register when one ends by itself. */
export interface Watches extends AsyncDisposable {
  start(instance: { id: string; generation: number }): void
  /** For a VM that is about to be ended on purpose. */
  stop(instanceId: string): void
}

const retryMs = 1_000

const endings: Readonly<Record<VmEnd, { state: "Shutdown" | "Stopped"; message: string }>> = {
  guest_shutdown: { state: "Shutdown", message: "the guest shut itself down" },
  guest_reset: { state: "Shutdown", message: "the guest reset itself" },
  guest_panicked: { state: "Shutdown", message: "the guest's kernel panicked" },
  ended_by_host: { state: "Stopped", message: "the VM's process was told to end by this host" },
  gone: {
    state: "Stopped",
    message: "the VM's process ended without a word; see qemu.log in the instance's directory",
  },
}

export function watches({
  db,
  dataDir,
  committed,
  log,
}: {
  db: OwnedDatabase
  dataDir: string
  committed: () => void
  log: Logger
}): Watches {
  const held = new Map<string, Watch>()
  const recording = new Set<Promise<void>>()
  const stopping = new AbortController()

  async function hold(instance: { id: string; generation: number }): Promise<void> {
    const dir = generationDir(dataDir, instance.id, instance.generation)
    const watch = await openWatch(dir)
    if (stopping.signal.aborted) return watch?.close()
    if (watch !== undefined) held.set(instance.id, watch)
    void (watch?.ended ?? Promise.resolve("gone" as const)).then((end) => {
      held.delete(instance.id)
      track(record(instance, end))
    })
  }

  /** Undefined when the VM's process has ended, or this has been disposed of meanwhile. */
  async function openWatch(dir: string): Promise<Watch | undefined> {
    for (; !stopping.signal.aborted; await delay(retryMs)) {
      try {
        return await watchQemu(dir)
      } catch (error) {
        if (!(error instanceof StillframeError)) throw error
        if (error.code === "hypervisor_gone") return undefined
        // The worker before this one may still be letting go of it.
        log.warn({ err: error, dir }, "vm can't be watched yet")
      }
    }
    return undefined
  }

  async function record(instance: { id: string; generation: number }, end: VmEnd): Promise<void> {
    for (; !(await recordEnd(db, instance, end)); await delay(retryMs)) if (stopping.signal.aborted) return
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
  { id, generation }: { id: string; generation: number },
  end: VmEnd,
): Promise<boolean> {
  const { state, message } = endings[end]
  return inTransaction(db, async (tx) => {
    const instance = await lockInstance(tx, id)
    if (instance?.state !== "Running" || instance.generation !== generation) return true
    if ((await pendingStateOperation(tx, id)) !== undefined) return false
    const ended = await advanceInstance(tx, id, state, { exit_message: message })
    if (ended !== undefined) await appendInstanceEvent(tx, "instance.state_changed", ended)
    return true
  })
}
