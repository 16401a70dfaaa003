import { inTransaction, type OwnedDatabase } from "@stillframe/db/client"
import { appendInstanceEvent } from "@stillframe/db/events/events"
import { advanceInstance, lockInstance, type InstanceRow } from "@stillframe/db/instances/instances"
import { pendingStateOperation } from "@stillframe/db/operations/operations"
import { hasVm } from "@stillframe/domain/instance"
import { isConnectionLoss } from "@stillframe/domain/postgres/connection-loss"
import type { VmEnd } from "@stillframe/hypervisors/watch"

export type End = VmEnd | "ended_by_owner"

export type WatchedInstance = Pick<InstanceRow, "id" | "generation" | "hypervisor" | "attached"> &
  Partial<Pick<InstanceRow, "pid" | "started_at">>

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

/**
 * Writes down that a VM has ended. False while an operation is under way that ends VMs, since that one says
 * itself what the instance has become, and while the database is lost: call it again later. `obstacle`: what
 * could not be put right.
 */
export async function recordEnd(
  db: OwnedDatabase,
  instance: WatchedInstance,
  end: End,
  obstacle: string | undefined,
): Promise<boolean> {
  return record(db, instance, end, obstacle).catch(notYet)
}

async function record(
  db: OwnedDatabase,
  { id, generation }: WatchedInstance,
  end: End,
  obstacle: string | undefined,
): Promise<boolean> {
  const { state, message } = endings[end]
  return inTransaction(db, async (tx) => {
    const instance = await lockInstance(tx, id)
    if (instance === undefined || !hasVm(instance.state) || instance.generation !== generation) return true
    if ((await pendingStateOperation(tx, id)) !== undefined) return false
    const ended = await advanceInstance(tx, id, state, {
      exit_message: obstacle === undefined ? message : `${message}; ${obstacle}`,
    })
    if (ended !== undefined) await appendInstanceEvent(tx, "instance.state_changed", ended)
    return true
  })
}

function notYet(error: unknown): false {
  if (isConnectionLoss(error)) return false
  throw error
}
