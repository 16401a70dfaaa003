import { stat, statfs } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError, toStillframeError } from "@stillframe/domain/errors"
import { counted } from "@stillframe/domain/text/counted"
import { nodeName } from "../../disks/block-node.ts"
import { layersUnmergedMax, overlaysOf, readDisks, type Disk, type DiskLayer } from "../../disks/disks.ts"
import { withMonitor, type Monitor } from "../monitor/qmp.ts"
import { qemuFiles } from "../process/command.ts"
import { activeOverlays } from "./active-overlays.ts"
import { assertUndisturbed } from "./assert-undisturbed.ts"
import { flushNode } from "./flush-node.ts"
import { copyLayers, finishMerge, mergesUnderWay, type MergeProgress } from "./merge-job.ts"
import { mergeRate } from "./merge-rate.ts"
import { releaseLayers } from "./release-layers.ts"

export interface MergeOptions {
  /** The VM's directory of this generation, which is QEMU's working directory. */
  dir: string
  /** Own overlays that a disk may have before it is merged; 8 if not given. */
  layersMax?: number
  /** 0 is no bound; without it `mergeRate` decides. */
  bytesPerSecond?: number
  /** Every 50 ms while layers are copied. */
  onProgress?: (progress: MergeProgress) => void
  /** On abort the merge is cancelled; QEMU has let go of it when `mergeLayers` throws. */
  signal: AbortSignal
}

const BLOCK_BYTES = 512

/**
 * Shortens the chains of a VM while it runs (or is paused): each disk with more than `layersMax` own overlays
 * gets all of them copied into its active one, so that only the caller's files stay below. Frozen layers are
 * never written, because snapshots share them; their names in `dir` are removed once the VM no longer uses
 * them. Gives the chains as they are then.
 *
 * Safe at any crash, and may be called again: a merge that was left half-way is taken up or starts anew. It
 * needs a process; a stopped VM's chain is merged when it runs again.
 *
 * Throws `conflict`, `invalid_state`, `insufficient_storage`, `cancelled`, `corrupted`, `timeout`,
 * `hypervisor_failed`, `hypervisor_gone`.
 */
export async function mergeLayers(options: MergeOptions): Promise<Disk[]> {
  const { dir, layersMax = layersUnmergedMax } = options
  return await withMonitor(dir, qemuFiles.command, async (monitor) => {
    try {
      await assertUndisturbed(monitor)
      const active = await activeOverlays(monitor)
      const underWay = await mergesUnderWay(monitor)
      for (const [index, disk] of (await readDisks(dir, active)).entries()) {
        if (disk.readonly || !active.has(index)) continue
        const overlays = overlaysOf(disk, index)
        if (overlays.length <= layersMax && !underWay.has(index)) continue
        // A running merge has taken part of its room already.
        if (!underWay.has(index)) await assertRoom(dir, overlays.slice(1), disk.virtualSize)
        await mergeDisk(monitor, disk, index, options)
      }
      await releaseLayers(monitor, dir)
      return await readDisks(dir, active)
    } catch (error) {
      throw toStillframeError(error)
    }
  })
}

async function mergeDisk(
  monitor: Monitor,
  disk: Disk,
  index: number,
  { layersMax = layersUnmergedMax, bytesPerSecond, signal, onProgress }: MergeOptions,
): Promise<void> {
  const overlays = overlaysOf(disk, index)
  const below = disk.layers.slice(overlays.length)
  const active = nodeName(index, disk.layers)
  const base = below[0] && { node: nodeName(index, below), file: below[0].file }
  const rate = bytesPerSecond ?? mergeRate(overlays.length, layersMax)
  const merge = { disk: index, active, ...(base && { base }), bytesPerSecond: rate }
  await copyLayers(monitor, merge, { signal, ...(onProgress && { onProgress }) })
  // QEMU itself does not: killed after the header names the base, it would leave a layer without what was
  // copied into it.
  await flushNode(monitor, index, disk.layers)
  await finishMerge(monitor, index)
}

/**
 * A file system that fills up would stop the guest at its next write, so a merge that may do that is not
 * begun.
 */
async function assertRoom(dir: string, frozen: readonly DiskLayer[], virtualSize: number): Promise<void> {
  const stats = await Promise.all(frozen.map(async ({ file }) => await stat(join(dir, file))))
  const allocated = stats.reduce((sum, { blocks }) => sum + blocks * BLOCK_BYTES, 0)
  const needed = Math.min(allocated, virtualSize)
  const { bavail, bsize } = await statfs(dir)
  if (bavail * bsize > needed) return
  throw new StillframeError(
    "insufficient_storage",
    `merging a disk's layers may take ${counted(needed, "byte")} and ${bavail * bsize} are free; make room in DATA_DIR`,
  )
}
