import { inTransaction } from "@stillframe/db/client"
import { appendInstanceEvent } from "@stillframe/db/events/events"
import {
  advanceInstance,
  deleteInstance,
  findInstance,
  setLaunch,
  type InstanceRow,
} from "@stillframe/db/instances/instances"
import { noteWarning, type ClaimedOperation } from "@stillframe/db/operations/operations"
import {
  finishDone,
  type OperationContext,
  type OperationHandler,
} from "@stillframe/db/operations/run-operation"
import type { Database } from "@stillframe/db/schema"
import { failCapturesOf } from "@stillframe/db/snapshots/snapshots"
import { StillframeError } from "@stillframe/domain/errors"
import { hasVm } from "@stillframe/domain/instance"
import { operationAttempts } from "@stillframe/domain/operation"
import { suspectsOf } from "../executor/blame.ts"
import { hostHypervisor } from "../host/host-hypervisor.ts"
import { recordedProcess } from "../host/recorded-process.ts"
import type { Worker } from "../worker.ts"
import { attach } from "./attach.ts"
import { attachedInstance, attachRequest } from "./attached-instance.ts"
import { withDiskRoom } from "./disk-room.ts"
import { endVm } from "./end-vm.ts"
import { buildingRoom, importRoom } from "./host-room.ts"
import { importWriter } from "./import-progress.ts"
import { reportDamage, targetOf, withPayload } from "./payload.ts"
import { release } from "./release.ts"
import { vmOrder } from "./vm-order.ts"

/** Starts the VM of a new instance, or finds the one that it is to be. */
export function launchHandler(worker: Worker): OperationHandler {
  return {
    failed: abandonInstance,
    async run(context) {
      const instance = await instanceToStart(worker, context)
      const request = attachRequest(instance)
      if (request !== undefined) return attach(worker, context, { instance, request })
      const launch = hostHypervisor(worker, instance.hypervisor).resolveLaunch(instance.launch)
      const hostPaths = [worker.config.imagesDir, ...worker.config.hostPaths]
      const room = await importRoom(worker.config, instance, { launch, hostPaths })
      const order = async (warning = "") => {
        await noteWarning(worker.db, context.operation, warning)
        return worker.captors.order(
          {
            kind: "launch",
            launch,
            hostPaths,
            suspects: suspectsOf(instance.launch, instance.hypervisor),
            ...vmOrder(worker, context, instance),
          },
          {
            signal: context.signal,
            onLost: async () => endVm(worker, context, instance, "instance"),
            onImport: importWriter(worker.db, instance.id, (err) =>
              worker.log.warn({ err, instanceId: instance.id }, "import's progress not written"),
            ),
          },
        )
      }
      const { result: launched, warning } = await withDiskRoom(worker, room, order)
      const started = await inTransaction(worker.db, async (tx) => {
        await setLaunch(tx, instance.id, { ...launched.launch })
        const running = await advanceInstance(tx, instance.id, "Running", { pid: launched.pid })
        await finishDone(tx, context.operation, warning)
        if (running !== undefined) await appendInstanceEvent(tx, "instance.state_changed", running)
        return running
      })
      worker.watches.start(started ?? instance)
    },
  }
}

/** Makes a new instance from a snapshot, from the raw memory while it is there, else from the frames. */
export function forkHandler(worker: Worker): OperationHandler {
  return {
    async failed(tx, operation, error) {
      await abandonInstance(tx, operation)
      await reportDamage(tx, operation, error)
    },
    async run(context) {
      const { operation } = context
      const instance = await instanceToStart(worker, context)
      const target = targetOf(operation)
      await withPayload(worker, operation, instance.hypervisor, async (payload) => {
        const room = await buildingRoom(worker, instance, { ...payload, target })
        const order = async (warning = "") => {
          await noteWarning(worker.db, operation, warning)
          return worker.captors.order(
            { kind: "restore", ...payload, target, isFork: true, ...vmOrder(worker, context, instance) },
            { signal: context.signal, onLost: async () => endVm(worker, context, instance, "instance") },
          )
        }
        const { result: vm, warning } = await withDiskRoom(worker, room, order)
        const started = await inTransaction(worker.db, async (tx) => {
          await setLaunch(tx, instance.id, { ...payload.launch })
          const forked = await advanceInstance(tx, instance.id, target, {
            pid: vm?.pid ?? null,
            standby_payload: target === "Standby" ? operation.token : null,
          })
          await finishDone(tx, operation, warning)
          if (forked !== undefined) await appendInstanceEvent(tx, "instance.forked", forked)
          return forked
        })
        if (target === "Running") worker.watches.start(started ?? instance)
      })
    },
  }
}

/**
 * Ends an instance's VM, unless someone else started it, and forgets the instance. Its snapshots stay;
 * captures that still waited for it fail.
 */
export function deleteHandler(worker: Worker): OperationHandler {
  return {
    async failed() {
      // Tried until it is done.
    },
    async run(context) {
      const { operation } = context
      const instance = await findInstance(worker.db, operation.instanceId ?? "")
      if (instance !== undefined) {
        worker.watches.stop(instance.id)
        if (attachedInstance(instance) !== undefined) await forget(worker, instance)
        else {
          if (operation.params["graceful"] === true) await askGuest(worker, context, instance)
          const recorded = recordedProcess(instance, worker.clock.reading())
          await endVm(worker, context, instance, "instance", recorded)
        }
        // Its files are gone only if the directory was there.
        await worker.home.identify()
      }
      await inTransaction(worker.db, async (tx) => {
        const deleted = await deleteInstance(tx, operation.instanceId ?? "")
        await finishDone(tx, operation)
        if (deleted === undefined) return
        await failCapturesOf(tx, deleted.id, "the instance was deleted before it could be captured")
        await appendInstanceEvent(tx, "instance.deleted", deleted)
      })
    },
  }
}

/**
 * Lets the guest shut itself down first, for as long as a stop would. The VM is ended all the same when that
 * fails.
 */
async function askGuest(worker: Worker, context: OperationContext, instance: InstanceRow): Promise<void> {
  if (instance.state !== "Running") return
  try {
    await worker.captors.order(
      { kind: "stop", guestMs: worker.config.stopGraceMs, ...vmOrder(worker, context, instance) },
      { signal: context.signal, onLost: async () => {} },
    )
  } catch (err) {
    context.signal.throwIfAborted()
    worker.log.warn({ err, instanceId: instance.id }, "guest not shut down before its deletion")
  }
}

/** The instance stays until the VM's owner has decided. */
async function forget(worker: Worker, instance: InstanceRow): Promise<void> {
  try {
    await release(worker, instance, { forget: true })
  } catch (error) {
    if (hasVm(instance.state)) worker.watches.start(instance)
    throw error
  }
}

async function instanceToStart(worker: Worker, context: OperationContext): Promise<InstanceRow> {
  const { operation } = context
  const instance = await findInstance(worker.db, operation.instanceId ?? "")
  if (instance === undefined) throw new StillframeError("cancelled", "the instance was deleted meanwhile")
  if (operation.attempt <= operationAttempts[operation.kind].max) return instance
  // A first try that vanished with its worker may have left a VM that runs, and nobody knows how far it came.
  await endVm(worker, context, instance, "instance")
  throw new StillframeError("hypervisor_gone", "the capture-worker died while it started the VM; try again")
}

/**
 * A start that failed leaves no instance: the caller has the reason, and the name is free for the next try.
 */
async function abandonInstance(tx: Database, operation: ClaimedOperation): Promise<void> {
  const deleted = await deleteInstance(tx, operation.instanceId ?? "")
  if (deleted !== undefined) await appendInstanceEvent(tx, "instance.deleted", deleted)
}
