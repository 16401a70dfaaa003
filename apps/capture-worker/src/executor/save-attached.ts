import type { Capture, CaptureRequest } from "@stillframe/hypervisors/capture"
import { attachedVms } from "@stillframe/hypervisors/hypervisor-of"
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
  { dir, options, pause }: { dir: string; options: CaptureRequest; pause: PauseHooks },
): Promise<Capture> {
  const into = { dir, memoryName: rawMemoryName }
  const { user, allowOverlay } = vm
  return (await attachedVms()).of(vm).capture(into, {
    ...options,
    ...secondPause(pause),
    // Its disks are copied from here on, which takes as long as it takes and holds nobody up.
    afterResume: pause.end,
    user,
    allowOverlay,
    order: vm.option === undefined ? order.launch.disks : [],
    rules: { hostPaths, dataDir: order.dataDir },
    home: instanceDir(order.dataDir, order.instanceId),
    qemuImg: order.hypervisor.qemuImg,
  })
}

/**
 * The stop in which a VM changes back to its owner's files. Its lease is not asked: to leave the VM on
 * overlays of ours would be worse.
 */
export function secondPause({ begin, end }: PauseHooks): {
  beforeSecondPause: PauseHooks["begin"]
  afterSecondPause: PauseHooks["end"]
} {
  return { beforeSecondPause: begin, afterSecondPause: end }
}
