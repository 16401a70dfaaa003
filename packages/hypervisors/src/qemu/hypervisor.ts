import { assertSourcesUnchanged, readDisksAtRest } from "../disks.ts"
import type { Hypervisor, HypervisorTools } from "../hypervisor.ts"
import { qemuFiles } from "./command.ts"
import { findQemu } from "./find-process.ts"
import { addOverlays, linkFiles, renewTops } from "./layers.ts"
import { immutableNames, prepareLaunch, startGuest } from "./prepare-launch.ts"
import { launchQemu } from "./process.ts"
import { withMonitor } from "./qmp.ts"
import { restoreQemu } from "./restore.ts"
import { endMigration, ensureRunning } from "./resume.ts"
import { stopQemu } from "./stop.ts"

/** VMs that run on QEMU: their disks are chains of layers, their memory is a stream. */
export function qemuHypervisor({ binary, qemuImg, runAs }: HypervisorTools): Hypervisor {
  const tools = { binary, ...(runAs !== undefined && { runAs }) }
  return {
    find: findQemu,
    prepare: (config, place) => prepareLaunch(config, { ...place, qemuImg }),
    async renew(dir, signal) {
      const atRest = await readDisksAtRest(dir)
      await assertSourcesUnchanged(dir, atRest)
      return renewTops(atRest, { dir, qemuImg, signal })
    },
    bring: (frozen, { config, from, dir, signal }) =>
      linkFiles(immutableNames(config, frozen), from, dir, signal),
    top: (frozen, place) => addOverlays(frozen, { ...place, qemuImg }),
    launch: (vm) => launchQemu({ ...vm, ...tools }),
    restore: (vm) => restoreQemu({ ...vm, ...tools }),
    begin: startGuest,
    settle: (dir, { wasRunning, onPresent }) =>
      withMonitor(dir, qemuFiles.command, async (monitor) => {
        await onPresent?.()
        await (wasRunning ? ensureRunning(monitor) : endMigration(monitor))
      }),
    stop: stopQemu,
  }
}
