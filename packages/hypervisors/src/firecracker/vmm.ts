import type { Vmm } from "../file-vmm/vmm.ts"
import { deadlineMs, runningVersion } from "./api.ts"
import { firecrackerControl } from "./control.ts"
import { savedNames } from "./files.ts"
import { beginGuest, launchFirecracker } from "./launch.ts"
import { probeFirecracker } from "./probe.ts"
import { restoreFirecracker } from "./restore.ts"
import { stopFirecracker } from "./stop.ts"

export const firecracker: Vmm = {
  memoryName: savedNames.memory,
  mapsSaved: true,
  probe: probeFirecracker,
  launch: launchFirecracker,
  begin: beginGuest,
  control: (dir, config) => firecrackerControl(dir, config),
  runningVersion: (dir, config) => runningVersion(dir, deadlineMs(config)),
  restore: restoreFirecracker,
  stop: stopFirecracker,
}
