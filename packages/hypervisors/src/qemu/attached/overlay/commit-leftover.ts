import { setTimeout as delay } from "node:timers/promises"
import { isOutOfDescriptors, StillframeError } from "@stillframe/domain/errors"
import { readQcow2Header } from "../../../disks/qcow2-header.ts"
import { fileExists } from "../../../files/file-exists.ts"
import { openHostFileAt, pathOfDescriptor, type HostFile } from "../../../files/host-file.ts"
import { processAlive } from "../../../process/processes.ts"
import { runProgram } from "../../../process/run-program.ts"
import {
  readOverlayRecord,
  removeOverlayRecord,
  unlinkDurably,
  type RecordedOverlay,
} from "./overlay-record.ts"

const LOCK_TIMEOUT_MS = 2000
const LOCK_POLL_MS = 50

/**
 * Writes what overlays of a VM that has ended hold into its owner's files, and removes them: before the VM is
 * started again. May be broken off and repeated at any point. Resolves with the owner's files that it
 * completed.
 *
 * By hand the same is `qemu-img commit <disk>.stillframe-overlay`, then removing that file.
 *
 * Throws `conflict` while the VM runs, when another file has taken the disk's place or the VM ran without its
 * overlay, and `hypervisor_failed` when the disk is in use.
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
    if (record.staged) await commit(recorded, { merging: record.merging, qemuImg, signal })
    await unlinkDurably(recorded.overlay)
    completed.push(recorded.base.path)
  }
  await removeOverlayRecord(home)
  return completed
}

/**
 * By descriptors: the directory may be QEMU's user's, who could lead `qemu-img`, which has our rights, to
 * another file. What the two files hold is that user's in any case, and he may write to them while this
 * looks; the chain is ours, so no name in them is followed but that of an external data file, which their
 * headers must not have when they are looked at.
 */
async function commit(
  { base, overlay }: RecordedOverlay,
  { merging, qemuImg, signal }: { merging: boolean; qemuImg: string; signal: AbortSignal },
): Promise<void> {
  await using opened = new AsyncDisposableStack()
  const openHere = async (path: string): Promise<HostFile | undefined> => {
    const file = await openHostFileAt(path).catch((error: unknown) => {
      if (isOutOfDescriptors(error instanceof Error ? error.cause : error)) throw error
      // A link, or what cannot be opened, is not the file that the VM had.
      return undefined
    })
    if (file === undefined) return undefined
    opened.use(file)
    return (await pathOfDescriptor(file)) === path ? file : undefined
  }
  const [top, bottom] = [await openHere(overlay), await openHere(base.path)]
  if (top === undefined || bottom === undefined || (await bottom.handle.stat()).ino !== base.inode) {
    throw new StillframeError(
      "conflict",
      `${base.path} is not the file that ${overlay} belongs to; put that file back, or remove the overlay`,
    )
  }
  if (!merging) await assertUntouched(base, bottom, overlay)
  for (const { opened: path } of base.format === "qcow2" ? [top, bottom] : [top]) await readQcow2Header(path)
  const backing: RecordedFile[] = []
  for (const { path, format } of base.backing) backing.push({ path: await readable(path, openHere), format })
  // The chain as it was when the VM ran: QEMU's user could write to both headers since.
  const chain = chainOf([
    { path: top.opened, format: "qcow2" },
    { path: bottom.opened, format: base.format },
    ...backing,
  ])
  const image = `json:${JSON.stringify(chain)}`
  await untilUnlocked(async () => await runProgram(qemuImg, ["commit", "-q", "-d", image], { signal }))
  await bottom.handle.sync()
}

type RecordedFile = Pick<RecordedOverlay["base"], "path" | "format">

async function readable(
  path: string,
  openHere: (path: string) => Promise<HostFile | undefined>,
): Promise<string> {
  const file = await openHere(path)
  if (file !== undefined) return file.opened
  throw new StillframeError("conflict", `${path} is missing or cannot be read; put the file back`)
}

/**
 * A VM that was started again without its overlay has gone another way since; only its owner can say which of
 * the two counts.
 */
async function assertUntouched(
  base: RecordedOverlay["base"],
  { handle }: HostFile,
  overlay: string,
): Promise<void> {
  if (base.mtimeMs === undefined || (await handle.stat()).mtimeMs === base.mtimeMs) return
  throw new StillframeError(
    "conflict",
    `${base.path} was written to after its last data went to ${overlay}; run qemu-img commit on the overlay if that data counts more, then remove it`,
  )
}

/**
 * A process that shows as a zombie may have threads left, which keep its image locks for some milliseconds
 * more.
 */
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

/** As QEMU takes it, from the topmost file down. */
function chainOf(files: readonly RecordedFile[]): object | null {
  return files.toReversed().reduce<object | null>(
    (backing, { path, format }) => ({
      driver: format,
      file: { driver: "file", filename: path },
      ...(format === "qcow2" && { backing }),
    }),
    null,
  )
}
