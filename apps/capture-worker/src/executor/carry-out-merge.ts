import { mergeLayers } from "@stillframe/hypervisors/qemu/layers/merge"
import { generationDir } from "@stillframe/storage/layout"
import type { MergeOrder } from "./orders.ts"

/**
 * Copies a VM's layers into its active ones while it runs. Stopped half-way it has changed nothing that
 * counts.
 */
export async function carryOutMerge(order: MergeOrder, signal: AbortSignal): Promise<null> {
  await mergeLayers({ dir: generationDir(order.dataDir, order.instanceId, order.generation), signal })
  return null
}
