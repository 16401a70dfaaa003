import { StillframeError } from "@stillframe/domain/errors"
import { openTrouble } from "@stillframe/domain/postgres/outage"
import { shownBytes } from "@stillframe/domain/text/bytes"
import { freeBytes } from "@stillframe/storage/space"
import type { CaptureWorkerConfig } from "../config.ts"
import type { Worker } from "../worker.ts"
import { withHostRoom, type RoomRequest } from "./host-room.ts"

const lookMs = 30_000

type DiskRoomWorker = Pick<Worker, "room" | "growths" | "log"> & {
  readonly config: Pick<CaptureWorkerConfig, "dataDir" | "spaceFloorBytes" | "diskOvercommit">
}

/**
 * Does what gives a VM disks that may grow, as `withHostRoom` does it. Resolves with a warning beside the
 * result where the disks of all VMs of the host may together grow by more than is free. Throws
 * `insufficient_storage`, and does nothing, where `DISK_OVERCOMMIT` is set and they may grow by more than so
 * many times as much. `work` gets the warning before.
 */
export async function withDiskRoom<T>(
  worker: DiskRoomWorker,
  request: RoomRequest,
  work: (warning: string | undefined) => Promise<T>,
): Promise<{ readonly result: T; readonly warning?: string }> {
  const { instanceId, growth } = request
  if (growth <= 0) return { result: await withHostRoom(worker, request, () => work(undefined)) }
  const free = await freeBytes(worker.config.dataDir)
  let warning: string | undefined
  const judge = (together: number): void => void (warning = warningOf(worker, request, { together, free }))
  using _promise = await worker.growths.promise(instanceId, growth, judge)
  const result = await withHostRoom(worker, request, () => work(warning))
  return { result, ...(warning !== undefined && { warning }) }
}

/**
 * For a VM that boots on disks that it has: there may be less room for them than there was when they were
 * made.
 */
export async function startRoom(
  { growths }: Pick<Worker, "growths">,
  { id }: { readonly id: string },
): Promise<RoomRequest> {
  return { instanceId: id, bytes: 0, why: "to start the VM", growth: await growths.of(id) }
}

/**
 * Looks every 30 s whether the disks may by now grow beyond what `DISK_OVERCOMMIT` allows, because something
 * else has taken room, and says so in the host's problems. Nothing is looked at where it is not set.
 */
export function watchDiskRoom(worker: DiskRoomWorker & Pick<Worker, "problems">): Disposable {
  const { config, growths, problems, log } = worker
  const trouble = openTrouble(log, { lost: "the growth of disks is not looked at" })
  const look = async (): Promise<void> => {
    const together = await growths.together()
    const { left, allowed } = roomIn(worker, await freeBytes(config.dataDir))
    const message = `the disks of this host's VMs may grow by ${shownBytes(together)}, and DATA_DIR has room for ${shownBytes(left)}, ${whatIsAllowed(config, allowed)}; until then no VM with a disk is made or started here`
    problems.set("disks", together > allowed ? { code: "insufficient_storage", message } : undefined)
  }
  if (config.diskOvercommit === undefined) return { [Symbol.dispose]() {} }
  const start = (): void => void look().then(trouble.worked, trouble.failed)
  const timer = setInterval(start, lookMs)
  start()
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

/** Undefined where the disks fit. Throws where they must. */
function warningOf(
  worker: DiskRoomWorker,
  { instanceId, bytes, growth }: RoomRequest,
  { together, free }: { together: number; free: number },
): string | undefined {
  const { config, log } = worker
  const { left, allowed } = roomIn(worker, free - bytes)
  if (together <= allowed) return undefined
  const facts = `the disks of this host's VMs may grow by ${shownBytes(together)}, this VM's by ${shownBytes(growth)} of that, and DATA_DIR has room for ${shownBytes(left)}`
  if (config.diskOvercommit !== undefined)
    throw new StillframeError("insufficient_storage", `${facts}, ${whatIsAllowed(config, allowed)}`)
  log.warn({ instanceId, growthBytes: together, leftBytes: left }, "disks may grow beyond the free room")
  return `${facts}: when it is used up, QEMU stops the VMs that write, and other hypervisors report a full disk to their guests. Enlarge the disk of DATA_DIR, or give the VM smaller disks; DISK_OVERCOMMIT=1 has such a VM refused`
}

/** The bytes that are left for disks, and by how many they may grow. */
function roomIn({ config, room }: DiskRoomWorker, free: number): { left: number; allowed: number } {
  const promised = [...room.values()].reduce((sum, other) => sum + other, 0)
  const left = Math.max(0, free - promised - config.spaceFloorBytes)
  return { left, allowed: (config.diskOvercommit ?? 1) * left }
}

function whatIsAllowed({ diskOvercommit }: DiskRoomWorker["config"], allowed: number): string {
  return `of which DISK_OVERCOMMIT=${diskOvercommit} allows ${shownBytes(allowed)}: delete instances or snapshots, enlarge the disk of DATA_DIR, use smaller disks, or raise DISK_OVERCOMMIT`
}
