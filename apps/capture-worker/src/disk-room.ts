import { shownBytes } from "@stillframe/domain/bytes"
import { StillframeError } from "@stillframe/domain/errors"
import { freeBytes } from "@stillframe/storage/space"
import type { CaptureWorkerConfig } from "./config.ts"
import { withHostRoom, type RoomRequest } from "./host-room.ts"
import type { Worker } from "./worker.ts"

type DiskRoomWorker = Pick<Worker, "room" | "growths" | "log"> & {
  readonly config: Pick<CaptureWorkerConfig, "dataDir" | "spaceFloorBytes" | "diskOvercommit">
}

/**
 * Does what gives a VM disks that may grow, as `withHostRoom` does it. Resolves with a warning beside the result where the disks of all VMs
 * of the host may together grow by more than is free. Throws `insufficient_storage`, and does nothing, where `DISK_OVERCOMMIT` is set and
 * they may grow by more than so many times as much.
 */
export async function withDiskRoom<T>(
  worker: DiskRoomWorker,
  request: RoomRequest,
  work: () => Promise<T>,
): Promise<{ readonly result: T; readonly warning?: string }> {
  const { instanceId, growth } = request
  if (growth <= 0) return { result: await withHostRoom(worker, request, work) }
  const free = await freeBytes(worker.config.dataDir)
  let warning: string | undefined
  const judge = (together: number): void => void (warning = warningOf(worker, request, { together, free }))
  using _promise = await worker.growths.promise(instanceId, growth, judge)
  const result = await withHostRoom(worker, request, work)
  return { result, ...(warning !== undefined && { warning }) }
}

/** For a VM that boots on disks that it has: there may be less room for them than there was when they were made. */
export async function startRoom(
  { growths }: Pick<Worker, "growths">,
  { id }: { readonly id: string },
): Promise<RoomRequest> {
  return { instanceId: id, bytes: 0, why: "to start the VM", growth: await growths.of(id) }
}

/** Undefined where the disks fit. Throws where they must. */
function warningOf(
  { config, room, log }: DiskRoomWorker,
  { instanceId, bytes, growth }: RoomRequest,
  { together, free }: { together: number; free: number },
): string | undefined {
  const promised = [...room.values()].reduce((sum, other) => sum + other, 0)
  const left = Math.max(0, free - promised - bytes - config.spaceFloorBytes)
  const allowed = (config.diskOvercommit ?? 1) * left
  if (together <= allowed) return undefined
  const facts = `the disks of this host's VMs may grow by ${shownBytes(together)}, this VM's by ${shownBytes(growth)} of that, and DATA_DIR has room for ${shownBytes(left)}`
  if (config.diskOvercommit !== undefined)
    throw new StillframeError(
      "insufficient_storage",
      `${facts}, of which DISK_OVERCOMMIT=${config.diskOvercommit} allows ${shownBytes(allowed)}: delete instances or snapshots, enlarge the disk of DATA_DIR, give the VM smaller disks, or raise DISK_OVERCOMMIT`,
    )
  log.warn({ instanceId, growthBytes: together, leftBytes: left }, "disks may grow beyond the free room")
  return `${facts}: when it is used up, QEMU stops the VMs that write, and other hypervisors report a full disk to their guests. Enlarge the disk of DATA_DIR, or give the VM smaller disks; DISK_OVERCOMMIT=1 has such a VM refused`
}
