import { open, stat } from "node:fs/promises"
import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { fileExists } from "../file-exists.ts"
import { processAlive } from "../processes.ts"
import { runProgram } from "../run-program.ts"
import {
  readOverlayRecord,
  removeOverlayRecord,
  unlinkDurably,
  type RecordedOverlay,
} from "./overlay-record.ts"
import { readQcow2Header } from "./qcow2-header.ts"

const LOCK_TIMEOUT_MS = 2000
const LOCK_POLL_MS = 50

/**
 * Writes what overlays of a VM that has ended hold into its owner's files, and removes them: before the VM is started again. May be broken
 * off and repeated at any point. Resolves with the owner's files that it completed.
 *
 * By hand the same is `qemu-img commit <disk>.stillframe-overlay`, then removing that file.
 *
 * Throws `conflict` while the VM runs, when another file has taken the disk's place or the VM ran without its overlay, and `hypervisor_failed` when the disk is in use.
 */
export async function commitLeftover(
  home: string,
  { qemuImg, signal }: { qemuImg: string; signal: AbortSignal },
): Promise<string[]> {
  const record = await readOverlayRecord(home)
  if (record === undefined) return []
  if (await processAlive(record.process)) {
    throw new StillframeError(
      "conflict",
      "the VM still runs on its overlays; they are merged while it runs, by its next capture",
    )
  }
  const completed: string[] = []
  for (const recorded of record.disks) {
    if (!(await fileExists(recorded.overlay))) continue
    if (record.staged) {
      if (!record.merging) await assertUntouched(recorded)
      await commit(recorded, { qemuImg, signal })
    }
    await unlinkDurably(recorded.overlay)
    completed.push(recorded.base.path)
  }
  await removeOverlayRecord(home)
  return completed
}

async function commit(
  { base, overlay }: RecordedOverlay,
  { qemuImg, signal }: { qemuImg: string; signal: AbortSignal },
): Promise<void> {
  const now = await stat(base.path).catch(() => undefined)
  if (now?.ino !== base.inode) {
    throw new StillframeError(
      "conflict",
      `${base.path} is not the file that ${overlay} belongs to; bring that back, or remove the overlay`,
    )
  }
  for (const path of [overlay, ...(base.format === "qcow2" ? [base.path] : [])]) await readQcow2Header(path)
  // The chain as it was when the VM ran: QEMU's user could write to both headers since.
  const image = `json:${JSON.stringify(chain(overlay, base))}`
  await untilUnlocked(async () => await runProgram(qemuImg, ["commit", "-q", "-d", image], { signal }))
  await sync(base.path)
}

/** A VM that was started again without its overlay has gone another way since; only its owner can say which of the two counts. */
async function assertUntouched({ base, overlay }: RecordedOverlay): Promise<void> {
  if (base.mtimeMs === undefined || (await stat(base.path)).mtimeMs === base.mtimeMs) return
  throw new StillframeError(
    "conflict",
    `${base.path} was written to after its last data went to ${overlay}; run qemu-img commit on the overlay if that data counts more, then remove it`,
  )
}

/** A process that shows as a zombie may have threads left, which keep its image locks for some milliseconds more. */
async function untilUnlocked(work: () => Promise<unknown>): Promise<void> {
  for (const end = performance.now() + LOCK_TIMEOUT_MS; ; await delay(LOCK_POLL_MS)) {
    try {
      await work()
      return
    } catch (error) {
      const mayHelp = error instanceof StillframeError && error.code === "hypervisor_failed"
      if (!mayHelp || performance.now() > end) throw error
    }
  }
}

function chain(overlay: string, base: RecordedOverlay["base"]): object {
  const below = [base, ...base.backing].toReversed().reduce<object | null>(
    (backing, { path, format }) => ({
      driver: format,
      file: { driver: "file", filename: path },
      ...(format === "qcow2" && { backing }),
    }),
    null,
  )
  return { driver: "qcow2", file: { driver: "file", filename: overlay }, backing: below }
}

async function sync(path: string): Promise<void> {
  const file = await open(path, "r")
  try {
    await file.sync()
  } finally {
    await file.close()
  }
}
