import type { InstanceRow } from "@stillframe/db/instances/instances"
import type { OperationContext } from "@stillframe/db/operations/run-operation"
import type { GuestConfig } from "@stillframe/hypervisors/launch-config"
import type { OperationOrder, SaveOrder, VmOrder } from "../executor/orders.ts"
import { hostHypervisor } from "../host/host-hypervisor.ts"
import type { Worker } from "../worker.ts"
import { attachedInstance } from "./attached-instance.ts"

/** A VM of this host, or what is to become one. */
export type PlacedVm = Pick<InstanceRow, "id" | "generation" | "hypervisor">

/** The part that every order has. */
export function operationOrder(
  { clusterId, config }: Worker,
  { operation, leaseRemainingMs }: OperationContext,
  instance: Pick<PlacedVm, "id" | "generation">,
): OperationOrder {
  return {
    clusterId,
    dataDir: config.dataDir,
    instanceId: instance.id,
    generation: instance.generation,
    operationId: operation.id,
    token: operation.token,
    leaseMs: leaseRemainingMs(),
  }
}

/** Adds the VM's hypervisor. Throws `hypervisor_unavailable` if the host no longer has it. */
export function vmOrder(worker: Worker, context: OperationContext, instance: PlacedVm): VmOrder {
  return {
    ...operationOrder(worker, context, instance),
    hypervisor: hostHypervisor(worker, instance.hypervisor).tools,
    storageDir: worker.config.storageDir,
  }
}

/** The part that every order to put a VM's state on disk has. */
export function saveOrder(worker: Worker, context: OperationContext, instance: InstanceRow): SaveOrder {
  return {
    ...vmOrder(worker, context, instance),
    instanceName: instance.name,
    hypervisorVersion:
      attachedInstance(instance)?.hypervisorVersion ??
      hostHypervisor(worker, instance.hypervisor).capabilities.version,
    launch: instance.launch as unknown as GuestConfig,
    memoryMib: instance.memory_mib,
    pauseExpectedMs: pauseExpectedMs(instance.memory_mib),
    pauseLimitMs: worker.config.pauseLimitMs,
    clock: worker.clock.reading(),
  }
}

/** 10 s and a second for each 64 MiB: a disk that writes less than that in a second is stuck or unfit. */
export function pauseExpectedMs(memoryMib: number): number {
  return 10_000 + (memoryMib / 64) * 1_000
}
