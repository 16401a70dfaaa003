import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import type { AttachedHypervisor, AttachedVm, AttachedVms } from "../../attached.ts"
import { processAlive } from "../../process/processes.ts"
import { endMigration } from "../monitor/resume.ts"
import { standstillOf } from "../monitor/standstill.ts"
import { attachQemu } from "./attach.ts"
import { captureAttached } from "./capture.ts"
import { openControlSocket } from "./control-socket.ts"
import { commitLeftover } from "./overlay/commit-leftover.ts"
import { readOverlayRecord } from "./overlay/overlay-record.ts"
import { resumeAttached, settleAttached } from "./take-over.ts"

/** The door to QEMU processes that someone else started. */
export const attachedVms: AttachedVms = {
  find: attachQemu,
  usesOverlays: async (home) => (await readOverlayRecord(home)) !== undefined,
  commitOverlays: commitLeftover,
  of: attachedQemu,
}

function attachedQemu({
  controlSocket,
  process,
}: Pick<AttachedVm, "controlSocket" | "process">): AttachedHypervisor {
  return {
    async look() {
      const monitor = await openControlSocket(controlSocket)
      return await standstillOf(monitor).finally(() => monitor.close())
    },
    async capture({ dir, memoryName }, options) {
      const memoryFile = join(dir, memoryName)
      const captured = await captureAttached({ ...options, controlSocket, process, dir, memoryFile })
      return { ...captured, files: [{ name: memoryName, role: "memory" }] }
    },
    async settle(home, { wasRunning }) {
      // Its owner may have started another one behind the same socket.
      if (!(await processAlive(process))) throw new StillframeError("hypervisor_gone", "the VM has ended")
      if (wasRunning) return await resumeAttached({ controlSocket, home })
      const monitor = await openControlSocket(controlSocket)
      await endMigration(monitor).finally(() => monitor.close())
    },
    async release(home, options) {
      if (await processAlive(process)) await settleAttached({ controlSocket, home }, options)
      else await commitLeftover(home, options)
    },
  }
}
