import { open, readdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { overlayNumber, readDisks } from "../../disks/disks.ts"
import { blockNodes } from "../monitor/block-nodes.ts"
import type { Monitor } from "../monitor/qmp.ts"
import { activeOverlays } from "./active-overlays.ts"

/**
 * Makes QEMU let go of the overlays that are in no chain any more, and removes their names from the VM's
 * directory; other links (of snapshots and forks) keep the bytes. Only for whoever holds the VM: a capture
 * under way has layers that are in no chain yet.
 */
export async function releaseLayers(monitor: Monitor, dir: string): Promise<void> {
  const active = await activeOverlays(monitor)
  const disks = await readDisks(dir, active)
  const names = await readdir(dir)
  for (const disk of active.keys()) {
    const chain = new Set(disks[disk]?.layers.map(({ file }) => file))
    const unused = names.filter((name) => overlayNumber(disk, name) !== undefined && !chain.has(name))
    const [top] = disks[disk]?.layers ?? []
    if (unused.length === 0 || top === undefined) continue
    // Newest first: each is what holds the one below it.
    const numbers = unused.map((name) => overlayNumber(disk, name) ?? 0).sort((a, b) => b - a)
    await removeNodes(monitor, disk, numbers)
    const inUse = await openOverlays(monitor, disk)
    await syncHeader(join(dir, top.file))
    for (const name of unused) if (!inUse.has(overlayNumber(disk, name))) await rm(join(dir, name))
  }
}

async function removeNodes(monitor: Monitor, disk: number, numbers: readonly number[]): Promise<void> {
  const opened = await openOverlays(monitor, disk)
  for (const number of numbers.filter((number) => opened.has(number))) {
    try {
      await monitor.execute("blockdev-del", { "node-name": `disk${disk}-${number}` })
    } catch (error) {
      // In use after all, or gone with the one above it: what is still open afterwards keeps its file.
      if (!(error instanceof StillframeError) || error.code !== "hypervisor_failed") throw error
    }
  }
}

/** The numbers of the overlays that QEMU has open. */
async function openOverlays(monitor: Monitor, disk: number): Promise<ReadonlySet<number | undefined>> {
  const nodes = await blockNodes(monitor)
  const numbers = nodes.map(({ "node-name": name }) => /^disk(\d+)-(\d+)$/.exec(name))
  return new Set(numbers.flatMap((match) => (Number(match?.[1]) === disk ? [Number(match?.[2])] : [])))
}

/**
 * The header that names the short chain must be on the device before the files of the long one lose their
 * names.
 */
async function syncHeader(path: string): Promise<void> {
  const file = await open(path, "r")
  try {
    await file.datasync()
  } finally {
    await file.close()
  }
}
