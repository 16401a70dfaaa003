import { inTransaction } from "@stillframe/db/client"
import { appendInstanceEvent } from "@stillframe/db/events/events"
import { completeAttach, recordFound, type InstanceRow } from "@stillframe/db/instances/instances"
import { finishDone, type OperationContext } from "@stillframe/db/operations/run-operation"
import { unlaunchable, unsavable } from "@stillframe/domain/restorable"
import type { AttachedVm } from "@stillframe/hypervisors/attached"
import type { AttachedInstance, AttachRequest } from "../executor/attached-instance.ts"
import type { Worker } from "../worker.ts"
import { endVm } from "./end-vm.ts"
import { vmOrder } from "./vm-order.ts"

/** Makes an instance the VM that its request names. Whatever fails, the VM was only looked at. */
export async function attach(
  worker: Worker,
  context: OperationContext,
  { instance, request }: { instance: InstanceRow; request: AttachRequest },
): Promise<void> {
  const { config } = worker
  const { control_socket: controlSocket, pid, allow_overlay: allowOverlay = false } = request
  const forget = async (): Promise<void> => endVm(worker, context, instance, "instance")
  const found = await worker.captors.order(
    {
      kind: "attach",
      controlSocket,
      ...(pid !== undefined && { pid }),
      binaries: config.attachBinaries,
      hostPaths: [config.imagesDir, ...config.hostPaths],
      ...vmOrder(worker, context, instance),
    },
    { signal: context.signal, onLost: forget },
  )
  try {
    await record(worker, context, instance, { found, allowOverlay })
  } catch (error) {
    await forget()
    throw error
  }
}

async function record(
  { db, watches }: Worker,
  { operation }: OperationContext,
  instance: InstanceRow,
  { found, allowOverlay }: { found: AttachedVm; allowOverlay: boolean },
): Promise<void> {
  const { standstill: _, blocked: __, launch, ...kept } = found
  const attached: AttachedInstance = {
    ...kept,
    allowOverlay,
    ...(!launch.restorable && { option: launch.option }),
  }
  const running = await inTransaction(db, async (tx) => {
    const row = await completeAttach(tx, instance.id, {
      pid: found.process.pid,
      vcpus: found.vcpus,
      memoryMib: found.memoryMib,
      launch: launch.restorable ? launch.config : {},
      attached,
      restorableReason: restorableReason(found),
    })
    await finishDone(tx, operation)
    if (row === undefined) return undefined
    const { standstill } = found
    const paused = standstill && ({ state: "Paused", reason: standstill.reason } as const)
    const shown = (paused && (await recordFound(tx, row, paused))) ?? row
    await appendInstanceEvent(tx, "instance.state_changed", shown)
    return shown
  })
  if (running !== undefined) watches.start(running)
}

/** Shown on the instance before a snapshot is asked for; null where one can be restored. */
function restorableReason({ blocked, launch }: AttachedVm): string | null {
  if (blocked.length > 0) return unsavable(blocked)
  return launch.restorable ? null : unlaunchable(launch.option)
}
