import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { nodeName } from "../../disks/block-node.ts"
import type { DiskFreeze } from "../../disks/disk-freeze.ts"
import { assertSourcesUnchanged, readDisks } from "../../disks/disks.ts"
import type { Monitor } from "../monitor/qmp.ts"
import { activeOverlays } from "./active-overlays.ts"
import { addOverlays, removeOverlays, type OverlayTools } from "./layers.ts"

/**
 * Prepares the next overlay of each writable disk of a VM of ours. New layers are made and opened before the
 * pause, so that switching to them is one quick transaction inside it; they stay, unless the switch never
 * came.
 */
export async function stageOverlays(monitor: Monitor, tools: OverlayTools): Promise<DiskFreeze> {
  const frozen = await readDisks(tools.dir, await activeOverlays(monitor))
  // Before the pause: a snapshot on a changed file could never be used.
  await assertSourcesUnchanged(tools.dir, frozen)
  const staged = await addOverlays(frozen, tools)
  const pairs = staged.flatMap((disk, index) => {
    const before = frozen[index]
    if (disk.readonly || before === undefined) return []
    return [
      {
        node: nodeName(index, before.layers),
        overlay: nodeName(index, disk.layers),
        file: disk.layers[0]?.file,
      },
    ]
  })
  let inUse = false
  const discard = async (): Promise<void> => {
    if (inUse) return
    for (const { overlay } of pairs) {
      await monitor.execute("blockdev-del", { "node-name": overlay }).catch(() => {
        // Never added, or QEMU has ended: either way it does not hold the file.
      })
    }
    await removeOverlays(staged, tools.dir)
  }
  try {
    for (const { overlay, file } of pairs) {
      const source = { driver: "file", filename: file }
      await monitor.execute("blockdev-add", {
        driver: "qcow2",
        "node-name": overlay,
        file: source,
        backing: null,
      })
    }
  } catch (error) {
    await discard()
    throw error
  }
  const take = async (): Promise<void> => {
    if (pairs.length === 0) return
    inUse = true
    try {
      const actions = pairs.map(({ node, overlay }) => ({
        type: "blockdev-snapshot",
        data: { node, overlay },
      }))
      await monitor.execute("transaction", { actions })
    } catch (error) {
      // Only a plain refusal proves that the VM does not write to the new layers.
      if (error instanceof StillframeError && error.code === "hypervisor_failed") inUse = false
      throw error
    }
  }
  const active = frozen.flatMap(({ readonly, layers: [top] }) =>
    readonly || top === undefined ? [] : [join(tools.dir, top.file)],
  )
  return { frozen, active, take, finish: async () => 0, discard }
}
