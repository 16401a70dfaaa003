import { stat } from "node:fs/promises"
import { isAbsolute, join } from "node:path"
import { runProgram } from "../process/run-program.ts"
import { blockNode } from "./block-node.ts"
import { assertSourcesUnchanged, isOverlay, type Disk, type DiskLayer } from "./disks.ts"
import { openSource } from "./import-sources.ts"
import { readQcow2Header } from "./qcow2-header.ts"

const statBlockBytes = 512

/** True if a disk is one raw file in the directory of its VM or payload, as for all but QEMU. */
export function isRawDisk({ layers }: Disk): boolean {
  const [only, ...below] = layers
  return only?.format === "raw" && below.length === 0 && !isAbsolute(only.file)
}

/** How much room raw files of those disks in `dir` that are none yet take at most. */
export async function convertedBytes(disks: readonly Disk[], dir: string): Promise<number> {
  const sizes = disks.filter((disk) => !isRawDisk(disk)).map((disk) => allocatedBytes(disk, dir))
  return (await Promise.all(sizes)).reduce((sum, bytes) => sum + bytes, 0)
}

/**
 * Writes what the chain in `from` comes to into one sparse raw file, absolute. The chain is spelled out:
 * whatever stands in the layers' headers, nothing else is opened. Throws `insufficient_storage`, `cancelled`,
 * `hypervisor_failed`, and `conflict` when a caller's file was changed while it was read.
 */
export async function convertToRaw(
  disk: Disk,
  { from, to, qemuImg, signal }: { from: string; to: string; qemuImg: string; signal: AbortSignal },
): Promise<void> {
  await using opening = new AsyncDisposableStack()
  const layers: DiskLayer[] = []
  for (const [index, layer] of disk.layers.entries()) {
    // The callers' files are the end of the chain. `qemu-img` has our rights, so it gets what was looked at,
    // not a name.
    const source = disk.sources[index - (disk.layers.length - disk.sources.length)]
    const isCallers = source !== undefined && source.link === undefined
    const file = isCallers ? opening.use(await openSource(source, from)).opened : layer.file
    if (layer.format === "qcow2") await readQcow2Header(inDirectory(from, file), layer.file)
    layers.push({ ...layer, file })
  }
  const chain = `json:${JSON.stringify(blockNode(0, layers, true))}`
  await runProgram(qemuImg, ["convert", "-q", "-O", "raw", chain, to], { cwd: from, signal })
  await assertSourcesUnchanged(from, [disk])
}

/**
 * At most the blocks of all a disk's layers in `dir`, or all of it where a qcow2 that is no overlay of ours
 * may be compressed.
 */
export async function allocatedBytes({ layers, virtualSize }: Disk, dir: string): Promise<number> {
  if (layers.some(({ file, format }) => format === "qcow2" && !isOverlay(file))) return virtualSize
  const blocks = await Promise.all(layers.map(({ file }) => stat(inDirectory(dir, file))))
  const bytes = blocks.reduce((sum, { blocks }) => sum + blocks * statBlockBytes, 0)
  return Math.min(virtualSize, bytes)
}

const inDirectory = (dir: string, file: string): string => (isAbsolute(file) ? file : join(dir, file))
