import { stat } from "node:fs/promises"
import { StillframeError } from "@stillframe/domain/errors"
import type { TargetState } from "@stillframe/domain/instance"
import { counted } from "@stillframe/domain/text/counted"
import { writableBytes } from "@stillframe/hypervisors/disks/disk-growth"
import type { Disk } from "@stillframe/hypervisors/disks/disks"
import { launchBytes, launchGrowth, openLaunchFiles } from "@stillframe/hypervisors/disks/launch-files"
import type { HypervisorTools } from "@stillframe/hypervisors/hypervisor"
import { hypervisorOf } from "@stillframe/hypervisors/hypervisor-of"
import type { GuestConfig } from "@stillframe/hypervisors/launch-config"
import { vmms } from "@stillframe/hypervisors/vmms"
import { rawMemoryName } from "@stillframe/storage/layout"
import { readManifest } from "@stillframe/storage/manifest"
import { freeBytes } from "@stillframe/storage/space"
import type { CaptureWorkerConfig } from "../config.ts"
import { hostHypervisor } from "../host/host-hypervisor.ts"
import type { HostRoom, Worker } from "../worker.ts"
import type { Payload } from "./payload.ts"
import type { PlacedVm } from "./vm-order.ts"

export interface RoomRequest {
  readonly instanceId: string
  /** 0: no room is needed. */
  readonly bytes: number
  /** The purpose of the bytes, and the alternatives, for the error message. */
  readonly why: string
  /** The bytes by which the disks of the VM that is made may grow then; 0 where none is made. */
  readonly growth: number
}

/**
 * Does what needs so many bytes of `DATA_DIR` for a while. Throws `insufficient_storage`, and does nothing,
 * where they can't be had.
 */
export async function withHostRoom<T>(
  { config, room }: { config: Pick<CaptureWorkerConfig, "dataDir" | "spaceFloorBytes">; room: HostRoom },
  { instanceId, bytes, why }: Omit<RoomRequest, "growth">,
  work: () => Promise<T>,
): Promise<T> {
  if (bytes === 0) return work()
  const free = await freeBytes(config.dataDir)
  // Bytes already written are counted twice: one operation too few is better than a full disk.
  const promised = [...room.values()].reduce((sum, other) => sum + other, 0)
  if (free - promised - bytes < config.spaceFloorBytes)
    throw new StillframeError(
      "insufficient_storage",
      `DATA_DIR has ${counted(free, "byte")} free, of which ${promised} are promised, and ${config.spaceFloorBytes} stay free; ${bytes} are needed there, ${why}`,
    )
  room.set(instanceId, bytes)
  try {
    return await work()
  } finally {
    room.delete(instanceId)
  }
}

/**
 * For what a payload's memory and disks become in the VM's directory: hypervisors that load whole files get
 * the memory as one, and the disks of another hypervisor in a form that they read.
 */
export async function buildingRoom(
  { config, hypervisors }: Pick<Worker, "config" | "hypervisors">,
  { id, hypervisor }: Pick<PlacedVm, "id" | "hypervisor">,
  payload: Payload & { target: TargetState },
): Promise<RoomRequest> {
  const { payloadDir, memoryFile, launch, target } = payload
  // QEMU reads the frames as they are.
  const asFile = (await vmms.get(hypervisor)?.())?.memoryName !== undefined
  const linked = memoryFile === rawMemoryName && (await onFileSystemOf(config.dataDir, payloadDir))
  const unpacked = target === "Running" && memoryFile !== undefined && asFile && !linked
  const { disks } = await readManifest(payloadDir, payload.manifestSha256)
  const { tools } = hostHypervisor({ hypervisors }, hypervisor)
  const place = { from: payloadDir, to: config.dataDir }
  // In Standby its disks stay as the payload has them.
  const brought = target === "Standby" ? [] : (disks as unknown as Disk[])
  const written = brought.filter(({ readonly }) => !readonly)
  const adapter = await hypervisorOf(tools)
  const forDisks = await adapter.roomToBring(brought, place)
  const growth = writableBytes(written) - (await adapter.roomToBring(written, place))
  const why = unpacked
    ? `for ${hypervisor} to load the snapshot's memory: free some, enlarge the disk, or ask for target_state Stopped`
    : `for the snapshot's disks in the form that ${hypervisor} reads: free some, or enlarge the disk`
  return { instanceId: id, bytes: forDisks + (unpacked ? launch.memoryMib * 1024 ** 2 : 0), why, growth }
}

/**
 * For the images of the files that a launch names, unless the file system shares blocks or has them already.
 */
export async function importRoom(
  { dataDir }: Pick<CaptureWorkerConfig, "dataDir">,
  { id, hypervisor }: Pick<PlacedVm, "id" | "hypervisor">,
  { launch, hostPaths }: { launch: GuestConfig; hostPaths: readonly string[] },
): Promise<RoomRequest> {
  await using files = await openLaunchFiles(launch, { hostPaths, dataDir })
  const why = "to import the files that the launch names: free some, or enlarge the disk"
  const bytes = await launchBytes(files, dataDir)
  const growth = await launchGrowth(files, { asCopies: vmms.has(hypervisor) && bytes > 0 })
  return { instanceId: id, bytes, why, growth }
}

/**
 * For a save into the VM's own directory, where its process can't walk to the payload, and the payload is no
 * rename away.
 */
export async function savingRoom(
  { dataDir, storageDir }: Pick<CaptureWorkerConfig, "dataDir" | "storageDir">,
  vm: { id: string; memory_mib: number },
  { name, vmUsers }: HypervisorTools,
): Promise<RoomRequest> {
  const why = `for ${name}, which runs as another user, to save the VM's memory: free some, enlarge the disk, or keep STORAGE_DIR on the same one`
  const elsewhere = vmms.has(name) && vmUsers !== undefined && !(await onFileSystemOf(dataDir, storageDir))
  return { instanceId: vm.id, bytes: elsewhere ? vm.memory_mib * 1024 ** 2 : 0, why, growth: 0 }
}

async function onFileSystemOf(dataDir: string, dir: string): Promise<boolean> {
  return (await stat(dataDir)).dev === (await stat(dir)).dev
}
