import { join } from "node:path"
import type { Capture } from "@stillframe/hypervisors/capture"
import { captureAttached } from "@stillframe/hypervisors/qemu/attached/capture"
import type { MergeHooks } from "@stillframe/hypervisors/qemu/attached/overlay/merge-overlays"
import type { SaveOptions } from "@stillframe/hypervisors/qemu/capture/save"
import { instanceDir, rawMemoryName } from "@stillframe/storage/layout"
import type { AttachedSource, CaptureOrder } from "./orders.ts"
import type { PauseHooks } from "./with-pause-record.ts"

/**
 * Saves the memory of a VM that someone else started into `dir`, and copies of its disks. It runs again when
 * this resolves, and when it fails.
 */
export async function saveAttached(
  order: CaptureOrder,
  { vm, hostPaths }: AttachedSource,
  { dir, options, pause }: { dir: string; options: Omit<SaveOptions, "memoryFile">; pause: PauseHooks },
): Promise<Capture> {
  const memoryFile = join(dir, rawMemoryName)
  const { controlSocket, process, user, allowOverlay } = vm
  const captured = await captureAttached({
    ...options,
    ...secondPause(pause),
    // Its disks are copied from here on, which takes as long as it takes and holds nobody up.
    afterResume: pause.end,
    controlSocket,
    process,
    user,
    allowOverlay,
    order: vm.option === undefined ? order.launch.disks : [],
    rules: { hostPaths, dataDir: order.dataDir },
    dir,
    home: instanceDir(order.dataDir, order.instanceId),
    memoryFile,
    qemuImg: order.hypervisor.qemuImg,
  })
  return { ...captured, files: [{ name: rawMemoryName, role: "memory" }] }
}

/**
 * The stop in which a VM changes back to its owner's files. Its lease is not asked: to leave the VM on
 * overlays of ours would be worse.
 */
export function secondPause({ begin, end }: PauseHooks): MergeHooks {
  return { beforeSecondPause: begin, afterSecondPause: end }
}
