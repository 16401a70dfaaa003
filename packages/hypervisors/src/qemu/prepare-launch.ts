import { takeInBootFiles } from "../boot-files.ts"
import { bootNames } from "../boot-names.ts"
import type { Disk } from "../disks.ts"
import { checkDisk, type HostPathRules } from "../host-paths.ts"
import { checkLaunchConfig, type GuestConfig, type LaunchConfig } from "../launch-config.ts"
import { qemuFiles } from "./command.ts"
import { layFirstDisks, layerNames, type OverlayTools } from "./layers.ts"
import { withMonitor } from "./qmp.ts"
import { ensureRunning } from "./resume.ts"

/**
 * Checks all that a launch names, on the host that will open it, and lays out the VM's directory: kernel and disks by hard link where
 * possible. Throws `invalid_request` before anything is made, or what the file system says.
 */
export async function prepareLaunch(
  config: LaunchConfig,
  { rules, ...tools }: OverlayTools & { rules: HostPathRules },
): Promise<Disk[]> {
  checkLaunchConfig(config)
  const checked = await Promise.all(config.disks.map(async (disk) => await checkDisk(disk, rules)))
  await takeInBootFiles(config, tools.dir, rules)
  return await layFirstDisks(checked, tools)
}

/** The files in a VM's directory that a restore of its snapshot needs beside the memory. They never change. */
export function immutableNames(config: GuestConfig, disks: readonly Disk[]): string[] {
  return [...bootNames(config), ...layerNames(disks)]
}

/** Lets a launched or restored VM go on, and reads back that it runs. */
export async function startGuest(dir: string): Promise<void> {
  await withMonitor(dir, qemuFiles.command, ensureRunning)
}
