import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import type { DiskFreeze } from "../../disks/disk-freeze.ts"
import type { HostPathRules } from "../../disks/host-paths.ts"
import { reflinkFreeze } from "../../disks/reflink-freeze.ts"
import { cloneObstacle, type Clone } from "../../files/clone-file.ts"
import type { DiskConfig } from "../../launch-config.ts"
import type { ProcessIdentity } from "../../process/processes.ts"
import { captureVm, type Captured, type CaptureTarget } from "../capture/capture.ts"
import type { SaveOptions } from "../capture/save.ts"
import type { Monitor } from "../monitor/qmp.ts"
import type { VmStatus } from "../monitor/resume.ts"
import { openControlSocket } from "./control-socket.ts"
import { copyName, frozenDisk, readAttachedDisks, type AttachedDisk } from "./disks.ts"
import { openAttachedFile } from "./file.ts"
import type { MergeHooks } from "./overlay/merge-overlays.ts"
import { overlayFreeze } from "./overlay/overlay-freeze.ts"
import { pausedFreeze } from "./overlay/paused-freeze.ts"
import { openAttachedSink } from "./sink.ts"
import { settleAttached } from "./take-over.ts"

export interface AttachedCaptureOptions extends SaveOptions, MergeHooks {
  /** As `attachQemu` gave them. */
  controlSocket: string
  process: ProcessIdentity
  user: { uid: number; gid: number }
  /** The disks in the order of the launch form; absent for a VM that has none. */
  order?: readonly DiskConfig[]
  rules: HostPathRules
  /** The attempt's directory: the copies of the disks go there, as `disk<k>.copy`. */
  dir: string
  /** The instance's directory, for `overlays.json`. */
  home: string
  /** True if the VM may run on our overlays for a while because its disks cannot be cloned. */
  allowOverlay: boolean
  qemuImg: string
}

/**
 * Captures a VM that someone else started. Its own files stay the ones it writes: its owner will start it
 * again from them. What an earlier capture left unfinished is led back first.
 *
 * Throws as `captureVm` does, and `not_supported` with the reason for disks that cannot be kept.
 */
export async function captureAttached(options: AttachedCaptureOptions): Promise<Captured> {
  const { controlSocket } = options
  if (options.mode === "live")
    throw new StillframeError("not_supported", "an attached VM cannot be captured live")
  await settleAttached(options, options)
  const bandwidth = await migrationBandwidth(controlSocket)
  try {
    return await captureVm(targetOf(options), options)
  } finally {
    // Its owner may migrate it one day, with limits of their own. A VM that can't be told has ended, or the
    // capture has said more of it.
    await setMigrationBandwidth(controlSocket, bandwidth).catch(() => {})
  }
}

function targetOf(options: AttachedCaptureOptions): CaptureTarget {
  const { controlSocket, process, user, memoryFile } = options
  return {
    openMonitor: async () => await openControlSocket(controlSocket),
    freezeDisks: async (monitor) => await freezeDisks(monitor, options),
    openSink: async () => await openAttachedSink({ pid: process.pid, user, memoryFile }),
  }
}

async function freezeDisks(monitor: Monitor, options: AttachedCaptureOptions): Promise<DiskFreeze> {
  const { process, rules, dir, allowOverlay, order = [] } = options
  const disks = inOrder(await readAttachedDisks(monitor, process.pid, rules), order)
  const cloned = await cloneFreeze(disks, dir)
  if (cloned !== undefined) return cloned
  const { running } = await monitor.execute<VmStatus>("query-status")
  if (!running) return await pausedFreeze(monitor, disks, options)
  if (allowOverlay) return await overlayFreeze({ ...options, monitor, disks })
  const paths = disks.filter(({ readonly }) => !readonly).map(({ path }) => path)
  throw new StillframeError(
    "not_supported",
    `${paths.join(", ")} cannot be cloned into the storage directory (that needs one file system with reflinks, such as XFS or Btrfs); set attach.allow_overlay to let the VM write to a temporary overlay while its disks are copied`,
  )
}

/**
 * Undefined where the file system cannot clone. The writable disks are opened before the pause, and cloned by
 * their descriptors.
 */
async function cloneFreeze(disks: readonly AttachedDisk[], dir: string): Promise<DiskFreeze | undefined> {
  await using opening = new AsyncDisposableStack()
  const clones: Clone[] = []
  for (const [index, disk] of disks.entries()) {
    if (disk.readonly) continue
    const { opened } = opening.use(await openAttachedFile(disk))
    clones.push({ from: disk.path, to: join(dir, copyName(index)), opened })
  }
  if ((await cloneObstacle(clones)) !== undefined) return undefined
  const freeze = reflinkFreeze(clones, await Promise.all(disks.map(frozenDisk)))
  const files = opening.move()
  return {
    ...freeze,
    async finish() {
      const pauseMs = await freeze.finish()
      await files.disposeAsync()
      return pauseMs
    },
    async discard() {
      await files.disposeAsync()
      await freeze.discard()
    },
  }
}

/** QEMU lists drives as they were named, a launch form as the guest counts them. */
function inOrder(disks: AttachedDisk[], order: readonly DiskConfig[]): AttachedDisk[] {
  const place = ({ path }: AttachedDisk): number => order.findIndex((config) => config.path === path)
  return disks.toSorted((a, b) => place(a) - place(b))
}

async function migrationBandwidth(controlSocket: string): Promise<number> {
  const monitor = await openControlSocket(controlSocket)
  try {
    const parameters = await monitor.execute<{ "max-bandwidth": number }>("query-migrate-parameters")
    return parameters["max-bandwidth"]
  } finally {
    monitor.close()
  }
}

async function setMigrationBandwidth(controlSocket: string, bandwidth: number): Promise<void> {
  const monitor = await openControlSocket(controlSocket)
  try {
    await monitor.execute("migrate-set-parameters", { "max-bandwidth": bandwidth })
  } finally {
    monitor.close()
  }
}
