import type { OperationContext } from "@stillframe/db/run-operation"
import { vmOrder, type PlacedVm } from "./vm-order.ts"
import type { Worker } from "./worker.ts"

/** Ends the VM's process and removes what this generation, or the whole instance, has on the host. */
export async function endVm(
  worker: Worker,
  context: OperationContext,
  instance: PlacedVm,
  remove: "generation" | "instance",
): Promise<void> {
  await worker.captors.order(
    { kind: "end", remove, ...vmOrder(worker, context, instance) },
    { signal: new AbortController().signal, onLost: async () => {} },
  )
}
