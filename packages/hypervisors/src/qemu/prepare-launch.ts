import type { Disk } from "../disks.ts"
import { checkDisk, resolveHostPath, type HostPathRules } from "../host-paths.ts"
import { checkLaunchConfig, type GuestConfig, type LaunchConfig } from "../launch-config.ts"
import { qemuFiles } from "./command.ts"
import { layFirstDisks, layerNames, takeIn, type OverlayTools } from "./layers.ts"
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
  const boot = await Promise.all(
    [config.kernel, config.initrd].map(async (path) => path && (await resolveHostPath(path, rules))),
  )
  const checked = await Promise.all(config.disks.map(async (disk) => await checkDisk(disk, rules)))
  if (boot[0] !== undefined) await takeIn(boot[0], tools.dir, qemuFiles.kernel)
  if (boot[1] !== undefined) await takeIn(boot[1], tools.dir, qemuFiles.initrd)
  return await layFirstDisks(checked, tools)
}

/** The files in a VM's directory that a restore of its snapshot needs beside the memory. They never change. */
export function immutableNames(config: GuestConfig, disks: readonly Disk[]): string[] {
  return [
    ...(config.kernel === undefined ? [] : [qemuFiles.kernel]),
    ...(config.initrd === undefined ? [] : [qemuFiles.initrd]),
    ...layerNames(disks),
  ]
}

/** Lets a launched or restored VM go on, and reads back that it runs. */
export async function startGuest(dir: string): Promise<void> {
  await withMonitor(dir, qemuFiles.command, ensureRunning)
}
