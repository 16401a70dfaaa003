import { inTransaction } from "@stillframe/db/client"
import { appendInstanceEvent } from "@stillframe/db/events/events"
import {
  advanceInstance,
  findInstance,
  setStateError,
  type InstanceRow,
} from "@stillframe/db/instances/instances"
import { noteWarning, type ClaimedOperation } from "@stillframe/db/operations/operations"
import {
  finishDone,
  type OperationContext,
  type OperationHandler,
} from "@stillframe/db/operations/run-operation"
import type { Database } from "@stillframe/db/schema"
import { StillframeError } from "@stillframe/domain/errors"
import { actionStates, hasVm, type InstanceAction, type InstanceState } from "@stillframe/domain/instance"
import { operationAttempts } from "@stillframe/domain/operation"
import type { GuestConfig } from "@stillframe/hypervisors/launch-config"
import { recordedProcess } from "../host/recorded-process.ts"
import { growthOf, takeOver } from "../pause/takeover.ts"
import type { Worker } from "../worker.ts"
import { startRoom, withDiskRoom } from "./disk-room.ts"
import { saveOrder, vmOrder } from "./vm-order.ts"

/** Ends an instance's VM; its disks stay. */
export function stopHandler(worker: Worker): OperationHandler {
  return {
    failed: recordStateError,
    async run(context) {
      const instance = await instanceIn(worker, context, "stop")
      worker.watches.stop(instance.id)
      try {
        await worker.captors.order(
          {
            kind: "stop",
            guestMs: worker.config.stopGraceMs,
            recorded: recordedProcess(instance, worker.clock.reading()),
            ...vmOrder(worker, context, instance),
          },
          { signal: context.signal, onLost: async () => {} },
        )
        await settle(worker, context, { instance, state: "Stopped", values: {} })
      } catch (error) {
        watchAgain(worker, instance)
        throw error
      }
    },
  }
}

/** Boots a stopped instance's VM on its disks. */
export function startHandler(worker: Worker): OperationHandler {
  return {
    failed: recordStateError,
    async run(context) {
      const instance = await instanceIn(worker, context, "start")
      const { attempt } = context.operation
      if (attempt > operationAttempts.start.max) {
        await stopQuietly(worker, context, instance)
        throw new StillframeError(
          "hypervisor_gone",
          "the capture-worker died while it started the VM; try again",
        )
      }
      const launch = instance.launch as unknown as GuestConfig
      const order = async (warning = "") => {
        await noteWarning(worker.db, context.operation, warning)
        return worker.captors.order(
          { kind: "start", launch, ...vmOrder(worker, context, instance) },
          { signal: context.signal, onLost: async () => stopQuietly(worker, context, instance) },
        )
      }
      const room = await startRoom(worker, instance)
      const { result, warning } = await withDiskRoom(worker, room, order)
      const values = { pid: result.pid }
      const started = await settle(worker, context, { instance, state: "Running", values, warning })
      worker.watches.start(started ?? instance)
    },
  }
}

/** Saves an instance's memory and ends its VM. */
export function standbyHandler(worker: Worker): OperationHandler {
  return {
    failed: recordStateError,
    async run(context) {
      const instance = await instanceIn(worker, context, "standby")
      worker.watches.stop(instance.id)
      try {
        const { token } = await worker.captors.order(
          { kind: "standby", ...saveOrder(worker, context, instance) },
          {
            signal: context.signal,
            onProgress: growthOf(worker.grown, instance.id),
            onLost: async () => {
              await takeOver(worker.config.dataDir, instance.id)
            },
          },
        )
        await settle(worker, context, { instance, state: "Standby", values: { standby_payload: token } })
      } catch (error) {
        watchAgain(worker, instance)
        throw error
      }
    },
  }
}

/** The instance stays what it is; what was asked of it has failed, and somebody may wait for the word. */
export async function recordStateError(
  tx: Database,
  operation: ClaimedOperation,
  error: StillframeError,
): Promise<void> {
  const instance = await setStateError(tx, operation.instanceId ?? "", error.message)
  if (instance !== undefined) await appendInstanceEvent(tx, "instance.state_changed", instance)
}

async function instanceIn(
  { db }: Worker,
  { operation }: OperationContext,
  action: InstanceAction,
): Promise<InstanceRow> {
  const instance = await findInstance(db, operation.instanceId ?? "")
  if (instance === undefined) throw new StillframeError("cancelled", "the instance was deleted meanwhile")
  const allowed: readonly InstanceState[] = actionStates[action]
  if (!allowed.includes(instance.state))
    throw new StillframeError(
      "invalid_state",
      `the instance is ${instance.state}, not ${allowed.join(" or ")}`,
    )
  return instance
}

async function settle(
  { db }: Worker,
  { operation }: OperationContext,
  {
    instance,
    state,
    values,
    warning,
  }: {
    instance: InstanceRow
    state: InstanceState
    values: Parameters<typeof advanceInstance>[3]
    warning?: string | undefined
  },
): Promise<InstanceRow | undefined> {
  return inTransaction(db, async (tx) => {
    const settled = await advanceInstance(tx, instance.id, state, values)
    await finishDone(tx, operation, warning)
    if (settled !== undefined) await appendInstanceEvent(tx, "instance.state_changed", settled)
    return settled
  })
}

/** After a failure nobody knows whether the VM runs: the watch finds out, and records an end. */
function watchAgain({ watches }: Worker, instance: InstanceRow): void {
  if (hasVm(instance.state)) watches.start(instance)
}

async function stopQuietly(worker: Worker, context: OperationContext, instance: InstanceRow): Promise<void> {
  await worker.captors.order(
    { kind: "stop", guestMs: 0, ...vmOrder(worker, context, instance) },
    { signal: new AbortController().signal, onLost: async () => {} },
  )
}
