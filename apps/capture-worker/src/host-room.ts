import { stat } from "node:fs/promises"
import { StillframeError } from "@stillframe/domain/errors"
import type { TargetState } from "@stillframe/domain/instance"
import type { HypervisorTools } from "@stillframe/hypervisors/hypervisor"
import { vmms } from "@stillframe/hypervisors/vmms"
import { rawMemoryName } from "@stillframe/storage/layout"
import { freeBytes } from "@stillframe/storage/space"
import type { CaptureWorkerConfig } from "./config.ts"
import type { Payload } from "./payload.ts"

/** By instance, the bytes that what is under way may still write into this host's `DATA_DIR`. */
export type HostRoom = Map<string, number>

export interface RoomRequest {
  readonly instanceId: string
  /** None is asked for where it is 0. */
  readonly bytes: number
  /** What they are for, and what else could be done. */
  readonly why: string
}

/** Does what needs so many bytes of `DATA_DIR` for a while. Throws `insufficient_storage`, and does nothing, where they can't be had. */
export async function withHostRoom<T>(
  { config, room }: { config: Pick<CaptureWorkerConfig, "dataDir" | "spaceFloorBytes">; room: HostRoom },
  { instanceId, bytes, why }: RoomRequest,
  work: () => Promise<T>,
): Promise<T> {
  if (bytes === 0) return work()
  const free = await freeBytes(config.dataDir)
  // What they have written already is counted twice: rather one too few than a full disk.
  const promised = [...room.values()].reduce((sum, other) => sum + other, 0)
  if (free - promised - bytes < config.spaceFloorBytes)
    throw new StillframeError(
      "insufficient_storage",
      `DATA_DIR has ${free} bytes free, of which ${promised} are promised, and ${config.spaceFloorBytes} stay free; ${bytes} are needed there, ${why}`,
    )
  room.set(instanceId, bytes)
  try {
    return await work()
  } finally {
    room.delete(instanceId)
  }
}

/** For the memory of a payload, which hypervisors that load whole files get as one in the VM's directory. */
export async function unpackingRoom(
  { dataDir }: Pick<CaptureWorkerConfig, "dataDir">,
  vm: { id: string; hypervisor: HypervisorTools["name"] },
  { payloadDir, memoryFile, launch, target }: Payload & { target: TargetState },
): Promise<RoomRequest> {
  const why = `for ${vm.hypervisor} to load the snapshot's memory: free some, enlarge the disk, or ask for target_state Stopped`
  // QEMU reads the frames as they are.
  const asFile = vmms.get(vm.hypervisor)?.memoryName !== undefined
  const linked = memoryFile === rawMemoryName && (await onFileSystemOf(dataDir, payloadDir))
  const unpacked = target === "Running" && memoryFile !== undefined && asFile && !linked
  return { instanceId: vm.id, bytes: unpacked ? launch.memoryMib * 1024 ** 2 : 0, why }
}

/** For a save into the VM's own directory, where its process can't walk to the payload, and the payload is no rename away. */
export async function savingRoom(
  { dataDir, storageDir }: Pick<CaptureWorkerConfig, "dataDir" | "storageDir">,
  vm: { id: string; memory_mib: number },
  { name, runAs }: HypervisorTools,
): Promise<RoomRequest> {
  const why = `for ${name}, which runs as another user, to save the VM's memory: free some, enlarge the disk, or keep STORAGE_DIR on the same one`
  const elsewhere = vmms.has(name) && runAs !== undefined && !(await onFileSystemOf(dataDir, storageDir))
  return { instanceId: vm.id, bytes: elsewhere ? vm.memory_mib * 1024 ** 2 : 0, why }
}

async function onFileSystemOf(dataDir: string, dir: string): Promise<boolean> {
  return (await stat(dataDir)).dev === (await stat(dir)).dev
}
