import { rm } from "node:fs/promises"
import { join } from "node:path"
import { inTransaction } from "@stillframe/db/client"
import { appendInstanceEvent } from "@stillframe/db/events/events"
import { advanceInstance, findInstance, type InstanceRow } from "@stillframe/db/instances/instances"
import { noteWarning, type ClaimedOperation } from "@stillframe/db/operations/operations"
import {
  finishDone,
  type OperationContext,
  type OperationHandler,
} from "@stillframe/db/operations/run-operation"
import { StillframeError } from "@stillframe/domain/errors"
import { actionStates, type InstanceState, type TargetState } from "@stillframe/domain/instance"
import { operationAttempts } from "@stillframe/domain/operation"
import type { GuestConfig } from "@stillframe/hypervisors/launch-config"
import type { ProcessIdentity } from "@stillframe/hypervisors/process/processes"
import { generationDir, standbyDir } from "@stillframe/storage/layout"
import { readManifest, requireFiles } from "@stillframe/storage/manifest"
import { memoryFileOf } from "../executor/seal.ts"
import { hostHypervisor } from "../host/host-hypervisor.ts"
import { resumeVm } from "../pause/takeover.ts"
import type { Worker } from "../worker.ts"
import { withDiskRoom } from "./disk-room.ts"
import { endVm } from "./end-vm.ts"
import { buildingRoom } from "./host-room.ts"
import { recordStateError } from "./instance-operations.ts"
import { hypervisorIn, reportDamage, targetOf, withPayload, type Payload } from "./payload.ts"
import type { WatchedInstance } from "./record-end.ts"
import { release } from "./release.ts"
import { vmOrder, type PlacedVm } from "./vm-order.ts"

/**
 * Puts an instance back: to a snapshot in place, or out of its own Standby. All of it is built as the next
 * generation, the VM loaded and still paused; one transaction makes that the instance's, and only then the
 * guest goes on and the old generation goes. Whatever fails before leaves the instance as it was.
 */
export function restoreHandler(worker: Worker): OperationHandler {
  return {
    async failed(tx, operation, error) {
      await recordStateError(tx, operation, error)
      await reportDamage(tx, operation, error)
    },
    async run(context) {
      const { operation } = context
      const instance = await instanceToRestore(worker, context)
      const target = targetOf(operation)
      await release(worker, instance, { forget: false })
      const next = nextGeneration(instance, operation)
      const build = async (payload: Payload): Promise<InstanceRow> => {
        const room = await buildingRoom(worker, next, { ...payload, target })
        // A VM that is stopped is judged when it is started: stopping one must not need room for what it
        // could write.
        const growth = target === "Running" ? room.growth : 0
        const order = async (warning = "") => {
          await noteWarning(worker.db, operation, warning)
          return worker.captors.order(
            { kind: "restore", ...payload, target, isFork: false, ...vmOrder(worker, context, next) },
            { signal: context.signal, onLost: async () => endVm(worker, context, next, "generation") },
          )
        }
        const { result: vm, warning } = await withDiskRoom(worker, { ...room, growth }, order)
        return commit(worker, operation, { next, target, vm, launch: payload.launch, warning })
      }
      const restored = await (operation.snapshotId === null
        ? build(await ownImage(worker, instance))
        : withPayload(worker, operation, next.hypervisor, build))
      // The rest is done again when this worker dies before it: by its next start.
      worker.committed()
      if (target === "Running") await goOn(worker, restored)
      await removeOld(worker, instance)
    },
  }
}

/** Has a VM go on whose row says so, and watches it. */
export async function goOn(
  worker: Worker,
  vm: PlacedVm & Pick<WatchedInstance, "pid" | "started_at">,
): Promise<void> {
  const { config, clusterId, watches, log } = worker
  try {
    const { id: instanceId, generation } = vm
    const { tools } = hostHypervisor(worker, vm.hypervisor)
    await resumeVm(config.dataDir, { clusterId, instanceId, generation, hypervisor: tools })
  } catch (err) {
    // One that has ended is recorded by its watch; one that is held is resumed by whoever holds it.
    log.warn({ err, instanceId: vm.id }, "vm not resumed")
  }
  watches.start({ ...vm, attached: null })
}

function nextGeneration({ id, generation, hypervisor }: InstanceRow, operation: ClaimedOperation): PlacedVm {
  return { id, generation: generation + 1, hypervisor: hypervisorIn(operation) ?? hypervisor }
}

async function ownImage({ config }: Worker, instance: InstanceRow): Promise<Payload> {
  const dir = join(standbyDir(config.dataDir, instance.id), instance.standby_payload ?? "")
  const manifest = await readManifest(dir)
  await requireFiles(dir, manifest)
  const memoryFile = memoryFileOf(manifest)
  return {
    payloadDir: dir,
    launch: manifest.launch as unknown as GuestConfig,
    ...(memoryFile !== undefined && { memoryFile }),
  }
}

async function instanceToRestore(worker: Worker, context: OperationContext): Promise<InstanceRow> {
  const { operation } = context
  const instance = await findInstance(worker.db, operation.instanceId ?? "")
  if (instance === undefined) throw new StillframeError("cancelled", "the instance was deleted meanwhile")
  const allowed: readonly InstanceState[] =
    operation.snapshotId === null ? actionStates.resume : actionStates.restore
  if (!allowed.includes(instance.state))
    throw new StillframeError(
      "invalid_state",
      `the instance is ${instance.state}, not ${allowed.join(" or ")}`,
    )
  if (operation.attempt <= operationAttempts.restore.max) return instance
  const next = nextGeneration(instance, operation)
  await endVm(worker, context, next, "generation")
  throw new StillframeError("hypervisor_gone", "the capture-worker died while it restored the VM; try again")
}

async function commit(
  { db }: Worker,
  operation: ClaimedOperation,
  {
    next,
    target,
    vm,
    launch,
    warning,
  }: {
    next: PlacedVm
    target: TargetState
    vm: ProcessIdentity | null
    launch: GuestConfig
    warning: string | undefined
  },
): Promise<InstanceRow> {
  return inTransaction(db, async (tx) => {
    const restored = await advanceInstance(tx, next.id, target, {
      generation: next.generation,
      hypervisor: next.hypervisor,
      pid: vm?.pid ?? null,
      launch: JSON.stringify(launch),
      vcpus: launch.vcpus,
      memory_mib: launch.memoryMib,
      standby_payload: target === "Standby" ? operation.token : null,
      // From here on it is a VM of ours, whoever started the one before.
      attached: null,
      restorable_reason: null,
      ...(operation.snapshotId !== null && ofNoLifeYet(target)),
    })
    await finishDone(tx, operation, warning)
    if (restored === undefined) throw new StillframeError("cancelled", "the instance was deleted meanwhile")
    const type = operation.snapshotId === null ? "instance.state_changed" : "instance.restored"
    await appendInstanceEvent(tx, type, restored)
    return restored
  })
}

/** A restored VM has not run yet: it must not keep the times and the end of its earlier life. */
function ofNoLifeYet(
  target: TargetState,
): Partial<Pick<InstanceRow, "started_at" | "stopped_at" | "exit_code" | "exit_message">> {
  const ended = { stopped_at: null, exit_code: null, exit_message: null }
  return target === "Running" ? ended : { ...ended, started_at: null }
}

async function removeOld({ config, log }: Worker, instance: InstanceRow): Promise<void> {
  const old = [generationDir(config.dataDir, instance.id, instance.generation)]
  if (instance.standby_payload !== null)
    old.push(join(standbyDir(config.dataDir, instance.id), instance.standby_payload))
  for (const dir of old) {
    // Tidied at the worker's next start; the instance has moved on.
    await rm(dir, { recursive: true, force: true }).catch((err: unknown) =>
      log.warn({ err, dir }, "old generation not removed yet"),
    )
  }
}
