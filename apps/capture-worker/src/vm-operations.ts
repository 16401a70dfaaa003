import { inTransaction } from "@stillframe/db/client"
import { appendInstanceEvent } from "@stillframe/db/events"
import {
  advanceInstance,
  deleteInstance,
  findInstance,
  setLaunch,
  type InstanceRow,
} from "@stillframe/db/instances"
import type { ClaimedOperation } from "@stillframe/db/operations"
import { releaseReader, takeReader } from "@stillframe/db/readers"
import { finishDone, type OperationContext, type OperationHandler } from "@stillframe/db/run-operation"
import type { Database } from "@stillframe/db/schema"
import { failCapturesOf } from "@stillframe/db/snapshots"
import { StillframeError } from "@stillframe/domain/errors"
import { operationAttempts } from "@stillframe/domain/operation"
import type { LaunchConfig } from "@stillframe/hypervisors/launch-config"
import { payloadDir } from "@stillframe/storage/layout"
import { readManifest } from "@stillframe/storage/manifest"
import { resolveLaunch } from "./resolve-launch.ts"
import type { Worker } from "./worker.ts"

/** Starts the VM of a new instance. */
export function launchHandler(worker: Worker): OperationHandler {
  return {
    failed: abandonInstance,
    async run(context) {
      const instance = await instanceToStart(worker, context)
      const launch = resolveLaunch(instance.launch, worker)
      const hostPaths = [worker.config.imagesDir, ...worker.config.hostPaths]
      const { pid } = await worker.captors.order(
        { kind: "launch", launch, hostPaths, ...vmOrder(worker, context, instance) },
        { signal: context.signal, onLost: async () => endVm(worker, context, instance) },
      )
      await started(worker, context.operation, { instance, pid, launch })
    },
  }
}

/** Starts a new instance from a snapshot, from the raw memory while it is there, else from the frames. */
export function forkHandler(worker: Worker): OperationHandler {
  return {
    failed: abandonInstance,
    async run(context) {
      const { operation } = context
      const instance = await instanceToStart(worker, context)
      const { readerId, snapshot } = await takeReader(worker.db, operation.snapshotId ?? "")
      try {
        const dir = payloadDir(worker.config.storageDir, snapshot.id, snapshot.payload ?? "")
        const launch = (await readManifest(dir)).launch as unknown as LaunchConfig
        const memoryFile = snapshot.memory_file ?? ""
        const { pid } = await worker.captors.order(
          { kind: "fork", launch, payloadDir: dir, memoryFile, ...vmOrder(worker, context, instance) },
          { signal: context.signal, onLost: async () => endVm(worker, context, instance) },
        )
        await started(worker, operation, { instance, pid, launch, forked: true })
      } finally {
        await releaseReader(worker.db, readerId)
      }
    },
  }
}

/** Ends an instance's VM and forgets the instance. Its snapshots stay; captures that still waited for it fail. */
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
        await endVm(worker, context, instance)
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

async function instanceToStart(worker: Worker, context: OperationContext): Promise<InstanceRow> {
  const { operation } = context
  const instance = await findInstance(worker.db, operation.instanceId ?? "")
  if (instance === undefined) throw new StillframeError("cancelled", "the instance was deleted meanwhile")
  if (operation.attempt <= operationAttempts[operation.kind].max) return instance
  // A first try that vanished with its worker may have left a VM that runs, and nobody knows how far it came.
  await endVm(worker, context, instance)
  throw new StillframeError("hypervisor_gone", "the worker died while it started the VM; try again")
}

async function started(
  { db, watches }: Worker,
  operation: ClaimedOperation,
  {
    instance,
    pid,
    launch,
    forked = false,
  }: { instance: InstanceRow; pid: number; launch: LaunchConfig; forked?: boolean },
): Promise<void> {
  await inTransaction(db, async (tx) => {
    await setLaunch(tx, instance.id, { ...launch })
    const running = await advanceInstance(tx, instance.id, "Running", { pid })
    await finishDone(tx, operation)
    if (running !== undefined)
      await appendInstanceEvent(tx, forked ? "instance.forked" : "instance.state_changed", running)
  })
  watches.start(instance)
}

/** A start that failed leaves no instance: the caller has the reason, and the name is free for the next try. */
async function abandonInstance(tx: Database, operation: ClaimedOperation): Promise<void> {
  const deleted = await deleteInstance(tx, operation.instanceId ?? "")
  if (deleted !== undefined) await appendInstanceEvent(tx, "instance.deleted", deleted)
}

async function endVm(worker: Worker, context: OperationContext, instance: InstanceRow): Promise<void> {
  await worker.captors.order(
    { kind: "end", ...vmOrder(worker, context, instance) },
    { signal: new AbortController().signal, onLost: async () => {} },
  )
}

/** The part that every order has. */
export function vmOrder(
  { clusterId, config, qemu }: Worker,
  { operation, leaseRemainingMs }: OperationContext,
  instance: InstanceRow,
): {
  clusterId: string
  dataDir: string
  instanceId: string
  generation: number
  operationId: string
  token: string
  leaseMs: number
  qemu: Worker["qemu"]["tools"]
} {
  return {
    clusterId,
    dataDir: config.dataDir,
    instanceId: instance.id,
    generation: instance.generation,
    operationId: operation.id,
    token: operation.token,
    leaseMs: leaseRemainingMs(),
    qemu: qemu.tools,
  }
}
