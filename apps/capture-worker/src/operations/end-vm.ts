import type { OperationContext } from "@stillframe/db/operations/run-operation"
import type { RecordedProcess } from "../host/recorded-process.ts"
import type { Worker } from "../worker.ts"
import { operationOrder, type PlacedVm } from "./vm-order.ts"

/**
 * Ends the VM's process and removes what this generation, or the whole instance, has on the host, whether its
 * hypervisor is still there or not. `recorded`: a process that is ended too.
 */
export async function endVm(
  worker: Worker,
  context: OperationContext,
  instance: PlacedVm,
  remove: "generation" | "instance",
  recorded?: RecordedProcess,
): Promise<void> {
  await worker.captors.order(
    { kind: "end", remove, recorded, ...operationOrder(worker, context, instance) },
    { signal: new AbortController().signal, onLost: async () => {} },
  )
}
