import { link, readdir, rename, rm, stat } from "node:fs/promises"
import { join } from "node:path"
import { overlayName, overlayNumber, type Disk, type DiskLayer } from "../../disks/disks.ts"
import type { CheckedDisk } from "../../disks/host-paths.ts"
import { layImages, type Importer } from "../../disks/launch-files.ts"
import { tryClone } from "../../files/clone-file.ts"
import { isOthers, linkOrCopy } from "../../files/link-files.ts"
import { makeOwnFile } from "../../files/own-file.ts"
import { isSealed, sealCopy } from "../../files/seal-copy.ts"
import { runProgram } from "../../process/run-program.ts"

/** The directory of new overlays, and the program that makes them. */
export interface OverlayTools {
  dir: string
  qemuImg: string
  signal: AbortSignal
}

/**
 * Lays the chains of a new VM in its directory: images of ours, and on each writable one its first overlay.
 */
export async function layFirstDisks(
  checked: readonly CheckedDisk[],
  { importer, ...tools }: OverlayTools & { importer: Importer },
): Promise<Disk[]> {
  const disks: Disk[] = []
  for (const [index, disk] of checked.entries()) {
    const { readonly, virtualSize } = disk
    disks.push({ readonly, virtualSize, layers: await layImages(disk, index, importer), sources: [] })
  }
  return await addOverlays(disks, tools)
}

/**
 * Puts a new, empty overlay on top of each writable disk: for a new VM, a fork, or as the layer that a
 * capture switches to. Nothing is opened but the new file, so no format is probed. The new layer is the first
 * of each chain in the result.
 */
export async function addOverlays(
  disks: readonly Disk[],
  { dir, qemuImg, signal }: OverlayTools,
  isNeeded: (top: string) => Promise<boolean> = async () => true,
): Promise<Disk[]> {
  const taken = await readdir(dir)
  return await Promise.all(
    disks.map(async (disk, index) => {
      const [active] = disk.layers
      if (disk.readonly || active === undefined || !(await isNeeded(active.file))) return disk
      const numbers = taken.map((name) => overlayNumber(index, name) ?? -1)
      const file = overlayName(index, Math.max(-1, ...numbers) + 1)
      await makeOverlay(file, { over: { ...disk, active }, dir, qemuImg, signal })
      return { ...disk, layers: [{ file, format: "qcow2" as const }, ...disk.layers] }
    }),
  )
}

/**
 * By its descriptor: the directory is the VM's user's, who may give the name to something else at any moment.
 * It gets the name of an overlay when it is one: whoever finds the VM at rest takes the one with the largest
 * number for the top of its chain.
 */
async function makeOverlay(
  file: string,
  { over, dir, qemuImg, signal }: OverlayTools & { over: Pick<Disk, "virtualSize"> & { active: DiskLayer } },
): Promise<void> {
  const half = join(dir, `${file}.half`)
  // A try before this one may have been killed in the middle.
  await rm(half, { force: true })
  await using made = await makeOwnFile(half)
  try {
    const backing = ["-u", "-b", over.active.file, "-F", over.active.format]
    const args = ["create", "-q", "-f", "qcow2", ...backing, made.path, String(over.virtualSize)]
    await runProgram(qemuImg, args, { cwd: dir, signal })
    const { uid, gid } = await stat(dir)
    if ((await made.file.stat()).uid !== uid) await made.file.chown(uid, gid)
    await rename(half, join(dir, file))
  } catch (error) {
    await rm(half, { force: true })
    throw error
  }
}

/**
 * The chains for a VM that starts again in its own directory: a new overlay where the one on top is a
 * snapshot's by now.
 */
export async function renewTops(disks: readonly Disk[], tools: OverlayTools): Promise<Disk[]> {
  return await addOverlays(disks, tools, (top) => isSealed(join(tools.dir, top)))
}

/** Removes the topmost overlay of each writable disk; for overlays that no VM uses. */
export async function removeOverlays(disks: readonly Disk[], dir: string): Promise<void> {
  for (const { readonly, layers } of disks) {
    if (!readonly && layers[0] !== undefined) await rm(join(dir, layers[0].file), { force: true })
  }
}

/**
 * Takes the right to write frozen layers from everybody, and the files from QEMU's own user: whoever breaks
 * out of a guest must not reach back into its snapshots. Forks read them as users of their own, in
 * directories that keep all others out.
 */
export async function sealLayers(disks: readonly Disk[], dir: string): Promise<void> {
  const overlays = disks.flatMap(({ layers }, index) =>
    layers.map(({ file }) => file).filter((file) => overlayNumber(index, file) !== undefined),
  )
  for (const file of overlays) await sealCopy(join(dir, file))
}

/**
 * Brings a frozen overlay into a payload, before `sealLayers`. A process that was broken out of may keep a
 * file open for writing that it wrote once. So where the file system clones, payload and VM get a clone that
 * no VM ever had open for writing.
 */
export async function keepOverlay(
  file: string,
  { from, dir, signal }: { from: string; dir: string; signal: AbortSignal },
): Promise<void> {
  const [own, kept] = [join(from, file), join(dir, file)]
  await linkOrCopy(own, kept, signal)
  if (!(await isOthers(kept, own))) return
  const clone = `${kept}.clone`
  if ((await tryClone({ from: kept, to: clone })) !== undefined) return
  await sealCopy(clone)
  await rename(clone, kept)
  // The next capture of this chain links it.
  const again = `${own}.again`
  await rm(again, { force: true })
  await link(kept, again)
  await rename(again, own)
}

/** Names of the files in a VM's directory that its disks' frozen chains need. */
export function layerNames(disks: readonly Disk[]): string[] {
  return disks.flatMap(({ layers }) => layers.map(({ file }) => file).filter((file) => !file.startsWith("/")))
}
