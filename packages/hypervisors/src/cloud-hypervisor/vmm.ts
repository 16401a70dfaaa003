import type { Vmm } from "../file-vmm/vmm.ts"
import { readVersion } from "./api.ts"
import { controlVm } from "./control.ts"
import { answerDeadlineMs } from "./deadline.ts"
import { savedNames } from "./files.ts"
import { beginVm, launchVm } from "./launch.ts"
import { probe } from "./probe.ts"
import { restoreVm } from "./restore.ts"
import { stopVm } from "./stop.ts"

/** Cloud Hypervisor, v48 and later: HTTP on `api.sock` in the VM's directory. */
export const cloudHypervisor: Vmm = {
  memoryName: savedNames.memory,
  probe,
  launch: launchVm,
  begin: beginVm,
  control: (dir, config) => controlVm(dir, answerDeadlineMs(config)),
  runningVersion: (dir, config) => readVersion(dir, answerDeadlineMs(config)),
  restore: restoreVm,
  stop: stopVm,
}
