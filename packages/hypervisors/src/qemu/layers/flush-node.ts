import { StillframeError } from "@stillframe/domain/errors"
import { nodeName } from "../../disks/block-node.ts"
import type { DiskLayer } from "../../disks/disks.ts"
import { blockNodes } from "../monitor/block-nodes.ts"
import type { Monitor } from "../monitor/qmp.ts"

/**
 * Makes QEMU write what it holds of a chain's active layer, its tables above all, to the device. QMP has no
 * flush; reopening a node with the options that it has flushes it first, and says so when that fails.
 */
export async function flushNode(monitor: Monitor, disk: number, layers: readonly DiskLayer[]): Promise<void> {
  const [top, ...below] = layers
  const nodes = await blockNodes(monitor)
  const file = nodes.find((node) => node.drv === "file" && node.file === top?.file)
  if (file === undefined)
    throw new StillframeError(
      "hypervisor_failed",
      `QEMU does not have ${top?.file} open; look at its qemu.log`,
    )
  const reopened = {
    driver: "qcow2",
    "node-name": nodeName(disk, layers),
    "read-only": false,
    file: file["node-name"],
    backing: below.length === 0 ? null : nodeName(disk, below),
  }
  await monitor.execute("blockdev-reopen", { options: [reopened] })
}
