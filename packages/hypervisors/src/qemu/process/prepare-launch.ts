import { isAbsolute } from "node:path"
import { bootNames } from "../../boot-names.ts"
import type { Disk } from "../../disks/disks.ts"
import { layBootFiles, openImporter, openLaunchFiles, type PreparePlace } from "../../disks/launch-files.ts"
import { checkLaunchConfig, type GuestConfig, type LaunchConfig } from "../../launch-config.ts"
import { layFirstDisks } from "../layers/layers.ts"
import { withMonitor } from "../monitor/qmp.ts"
import { ensureRunning } from "../monitor/resume.ts"
import { qemuFiles } from "./command.ts"

/**
 * Checks all that a launch names, on the host that will open it, and lays out the VM's directory with images
 * of ours of the caller's files. Throws `invalid_request` before anything is made, and what `importImage`
 * throws.
 */
export async function prepareLaunch(
  config: LaunchConfig,
  { qemuImg, ...place }: PreparePlace & { qemuImg: string },
): Promise<Disk[]> {
  checkLaunchConfig(config)
  await using files = await openLaunchFiles(config, place.rules)
  const importer = await openImporter(files, place)
  await layBootFiles(files, importer)
  return await layFirstDisks(files.disks, { dir: place.dir, signal: place.signal, qemuImg, importer })
}

/**
 * The files in a VM's directory that a restore of its snapshot needs beside the memory. They never change.
 */
export function immutableFiles(
  config: GuestConfig,
  disks: readonly Disk[],
): { readonly file: string; readonly sha256?: string | undefined }[] {
  const layers = disks.flatMap((disk) => disk.layers).filter(({ file }) => !isAbsolute(file))
  return [...bootNames(config).map((file) => ({ file })), ...layers]
}

/** Lets a launched or restored VM go on, and reads back that it runs. */
export async function startGuest(dir: string): Promise<void> {
  await withMonitor(dir, qemuFiles.command, ensureRunning)
}
