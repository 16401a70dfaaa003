import { mkdtemp, open, readFile, rm, stat } from "node:fs/promises"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import type { DiskFreeze } from "../../../disks/disk-freeze.ts"
import { fileExists } from "../../../files/file-exists.ts"
import type { ProcessIdentity } from "../../../process/processes.ts"
import { runProgram } from "../../../process/run-program.ts"
import type { Monitor } from "../../monitor/qmp.ts"
import { copyName, frozenDisk, type AttachedDisk } from "../disks.ts"
import { openAttachedFile } from "../file.ts"
import { mergeOverlays, type MergeHooks } from "./merge-overlays.ts"
import {
  removeOverlayRecord,
  unlinkDurably,
  writeOverlayRecord,
  type OverlayRecord,
  type RecordedOverlay,
} from "./overlay-record.ts"
import { copyDisks } from "./paused-freeze.ts"

export interface OverlayFreezeOptions extends MergeHooks {
  monitor: Monitor
  process: ProcessIdentity
  /** QEMU's user, who must be able to open what we make. */
  user: { uid: number; gid: number }
  disks: readonly AttachedDisk[]
  /** The directory of the copies. */
  dir: string
  /** The instance's directory, for the record. */
  home: string
  qemuImg: string
  signal: AbortSignal
}

const OVERLAY_SUFFIX = ".stillframe-overlay"

/**
 * Keeps the disks by letting the VM write to overlays beside them while they are copied. `finish` copies and
 * leads the VM back to its own files, which needs a second stop of some milliseconds. The way back is gone
 * whatever happens to the copies, a cancellation included.
 */
export async function overlayFreeze(options: OverlayFreezeOptions): Promise<DiskFreeze> {
  const { monitor, disks, home } = options
  const record = await recordFor(options)
  // Everything that can fail without a trace comes before the record, which promises a trace.
  const frozen = await Promise.all(disks.map(frozenDisk))
  await assertNoLeftovers(record)
  await writeOverlayRecord(home, record)
  let inUse = false
  const merge = async (): Promise<number> =>
    await mergeOverlays(monitor, { ...options, record: { ...record, staged: true } })
  const discard = async (): Promise<void> => {
    await removeCopies(options)
    if (inUse) await merge()
    else await takeAway(monitor, home, record)
  }
  try {
    for (const recorded of record.disks) await stage(recorded, options)
    await writeOverlayRecord(home, { ...record, staged: true })
    await options.onStep?.("staged")
  } catch (error) {
    await discard()
    throw error
  }
  const take = async (): Promise<void> => {
    inUse = true
    const actions = record.disks.map(({ base, overlayNode }) => ({
      type: "blockdev-snapshot",
      data: { node: base.node, overlay: overlayNode },
    }))
    try {
      await monitor.execute("transaction", { actions })
    } catch (error) {
      // Only a plain refusal proves that the VM does not write to the overlays.
      if (error instanceof StillframeError && error.code === "hypervisor_failed") inUse = false
      throw error
    }
    await options.onStep?.("frozen")
  }
  const finish = async (): Promise<number> => {
    await noteTimes(home, record)
    await copyDisks(disks, options)
    await options.onStep?.("copied")
    const pauseMs = await merge()
    inUse = false
    return pauseMs
  }
  return { frozen, active: record.disks.map(({ base }) => base.path), take, finish, discard }
}

async function recordFor({ disks, process }: OverlayFreezeOptions): Promise<OverlayRecord> {
  const recorded = disks.map(async (disk, index) => {
    await using file = await openAttachedFile(disk)
    return {
      base: { ...disk, inode: (await file.handle.stat()).ino },
      overlay: disk.path + OVERLAY_SUFFIX,
      overlayNode: `stillframe-overlay-${index}`,
      job: `stillframe-commit-${index}`,
    }
  })
  return {
    process,
    staged: false,
    merging: false,
    disks: (await Promise.all(recorded)).filter(({ base }) => !base.readonly),
  }
}

async function assertNoLeftovers({ disks }: OverlayRecord): Promise<void> {
  for (const { overlay } of disks) {
    if (!(await fileExists(overlay))) continue
    throw new StillframeError(
      "conflict",
      `${overlay} was left by an earlier capture that has no record; stop the VM and run qemu-img commit on it, then remove it`,
    )
  }
}

/** Makes the overlay and has QEMU open it. */
async function stage(
  { base, overlay, overlayNode }: RecordedOverlay,
  o: OverlayFreezeOptions,
): Promise<void> {
  const image = await emptyOverlay(base, o)
  // In a directory that may be QEMU's user's: a link left there must not lead us to another file.
  const file = await open(overlay, "wx", 0o600)
  try {
    await file.writeFile(image)
    if (process.getuid?.() === 0) await file.chown(o.user.uid, o.user.gid)
    await file.sync()
  } finally {
    await file.close()
  }
  await o.monitor.execute("blockdev-add", {
    driver: "qcow2",
    "node-name": overlayNode,
    file: { driver: "file", filename: overlay },
    backing: null,
  })
}

/** The bytes of an overlay whose header names its base, for the person who may have to commit it by hand. */
async function emptyOverlay(base: AttachedDisk, o: OverlayFreezeOptions): Promise<Buffer> {
  const dir = await mkdtemp(join(tmpdir(), "stillframe-overlay-"))
  try {
    const backing = ["-u", "-b", basename(base.path), "-F", base.format]
    const args = ["create", "-q", "-f", "qcow2", ...backing, "overlay", String(base.virtualSize)]
    await runProgram(o.qemuImg, args, { cwd: dir, signal: o.signal })
    return await readFile(join(dir, "overlay"))
  } finally {
    await rm(dir, { recursive: true })
  }
}

async function removeCopies({ disks, dir }: OverlayFreezeOptions): Promise<void> {
  for (const index of disks.keys()) await rm(join(dir, copyName(index)), { force: true })
}

/**
 * So that a VM which its owner starts without the overlay, and which makes that one worthless, is found out.
 */
async function noteTimes(home: string, record: OverlayRecord): Promise<void> {
  const disks = record.disks.map(async (recorded) => {
    return { ...recorded, base: { ...recorded.base, mtimeMs: (await stat(recorded.base.path)).mtimeMs } }
  })
  await writeOverlayRecord(home, { ...record, staged: true, disks: await Promise.all(disks) })
}

/** For overlays that the VM never switched to. */
async function takeAway(monitor: Monitor, home: string, record: OverlayRecord): Promise<void> {
  for (const { overlay, overlayNode } of record.disks) {
    await monitor.execute("blockdev-del", { "node-name": overlayNode }).catch(() => {
      // Never added, or QEMU has ended: either way it does not hold the file.
    })
    await unlinkDurably(overlay)
  }
  await removeOverlayRecord(home)
}
