import type { VmmLaunch } from "../file-vmm/vmm.ts"
import { giveFiles } from "../files/vm-user-files.ts"
import type { GuestConfig } from "../launch-config.ts"
import type { ProcessIdentity } from "../process/processes.ts"
import { order, readVm } from "./api.ts"
import { assertState } from "./assert-state.ts"
import { answerDeadlineMs } from "./deadline.ts"
import { assertLookRaw } from "./raw-disks.ts"
import { startVmm } from "./start-vmm.ts"
import { diskFile, namesImageTypes, vmConfig } from "./vm-config.ts"

/** Starts a process with a VM that has not booted yet. */
export async function launchVm(options: VmmLaunch): Promise<ProcessIdentity> {
  const { dir, config, disks, runAs } = options
  if (runAs !== undefined) await giveFiles(options, diskFile, runAs)
  return await startVmm({
    ...options,
    set: async (version) => {
      if (!namesImageTypes(version)) await assertLookRaw(dir, disks)
      const body = vmConfig(config, disks, version)
      await order(dir, "vm.create", { deadlineMs: answerDeadlineMs(config), body })
    },
  })
}

/** Boots a VM that was created, or lets one that was loaded go on. */
export async function beginVm(dir: string, config: GuestConfig): Promise<void> {
  const deadlineMs = answerDeadlineMs(config)
  const state = (await readVm(dir, deadlineMs))?.state
  if (state === "Created") await order(dir, "vm.boot", { deadlineMs })
  if (state === "Paused") await order(dir, "vm.resume", { deadlineMs })
  await assertState(dir, "running", deadlineMs)
}
