import type { OperationContext } from "@stillframe/db/run-operation"
import { operationOrder, type PlacedVm } from "./vm-order.ts"
import type { Worker } from "./worker.ts"

/** Ends the VM's process and removes what this generation, or the whole instance, has on the host, whether its hypervisor is still there or not. */
export async function endVm(
  worker: Worker,
  context: OperationContext,
  instance: PlacedVm,
  remove: "generation" | "instance",
): Promise<void> {
  await worker.captors.order(
    { kind: "end", remove, ...operationOrder(worker, context, instance) },
    { signal: new AbortController().signal, onLost: async () => {} },
  )
}
