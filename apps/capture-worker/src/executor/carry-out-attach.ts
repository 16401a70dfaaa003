import { mkdir, rm } from "node:fs/promises"
import { join } from "node:path"
import type { AttachedVm } from "@stillframe/hypervisors/attached"
import { bootFiles } from "@stillframe/hypervisors/boot-names"
import { openHostFile } from "@stillframe/hypervisors/disks/host-paths"
import { hostImages } from "@stillframe/hypervisors/disks/image-store"
import { importImage } from "@stillframe/hypervisors/disks/import-image"
import { attachedVms } from "@stillframe/hypervisors/hypervisor-of"
import { generationDir, instanceDir } from "@stillframe/storage/layout"
import { readPauseRecord } from "../pause/pause-record.ts"
import { leaveAsFound } from "../pause/takeover.ts"
import type { AttachOrder, ReleaseOrder } from "./orders.ts"
import { secondPause } from "./save-attached.ts"
import { withPauseRecord } from "./with-pause-record.ts"

/** Looks at a VM that someone else started. When it fails, nothing of the instance is left on the host. */
export async function carryOutAttach(order: AttachOrder, signal: AbortSignal): Promise<AttachedVm> {
  const { dataDir, instanceId, generation, hypervisor, controlSocket, pid, binaries, hostPaths } = order
  const rules = { hostPaths, dataDir }
  try {
    const { find } = await attachedVms()
    const vm = await find({
      controlSocket,
      ...(pid !== undefined && { pid }),
      binaries,
      launcher: hypervisor.binary,
      ...(hypervisor.vmUsers !== undefined && { users: hypervisor.vmUsers }),
      rules,
    })
    const dir = generationDir(dataDir, instanceId, generation)
    await mkdir(dir, { recursive: true, mode: 0o700 })
    // By the next capture its owner may have put a newer kernel under the same name.
    const { kernel, initrd } = vm.launch.restorable ? vm.launch.config : {}
    for (const [name, path] of [
      [bootFiles.kernel, kernel],
      [bootFiles.initrd, initrd],
    ] as const) {
      if (path === undefined) continue
      await using file = await openHostFile(path, rules)
      await importImage(file, join(dir, name), { store: hostImages(dataDir), signal })
    }
    return vm
  } catch (error) {
    await rm(instanceDir(dataDir, instanceId), { recursive: true, force: true })
    throw error
  }
}

/**
 * Leaves a VM that someone else started running as it ran, on its own files; one that has ended with all it
 * wrote in them.
 */
export async function carryOutRelease(order: ReleaseOrder, signal: AbortSignal): Promise<null> {
  const { dataDir, instanceId, vm } = order
  const { qemuImg } = order.hypervisor
  const home = instanceDir(dataDir, instanceId)
  const record = await readPauseRecord(home)
  if (record !== undefined) await leaveAsFound(dataDir, record)
  const { of, usesOverlays } = await attachedVms()
  if (await usesOverlays(home))
    await withPauseRecord(order, (pause) => of(vm).release(home, { ...secondPause(pause), qemuImg, signal }))
  if (order.forget) await rm(home, { recursive: true, force: true })
  return null
}
