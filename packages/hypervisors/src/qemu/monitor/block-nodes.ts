import type { Monitor } from "./qmp.ts"

export interface BlockNode {
  "node-name": string
  drv: string
  /** As QEMU opened it. */
  file: string
}

/**
 * All nodes that QEMU has open. Only ever flat: the default repeats with each node the chain below it, and
 * QEMU stands still, its guest with it, for 363 ms at 100 layers and 10 s at 300.
 */
export async function blockNodes(monitor: Monitor): Promise<BlockNode[]> {
  return await monitor.execute<BlockNode[]>("query-named-block-nodes", { flat: true })
}
