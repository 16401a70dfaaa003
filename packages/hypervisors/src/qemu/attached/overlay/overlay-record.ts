import { open, readFile, rename, rm } from "node:fs/promises"
import { dirname, join } from "node:path"
import type { ProcessIdentity } from "../../../process/processes.ts"
import type { AttachedDisk } from "../disks.ts"

/**
 * Overlays that an attached VM may be writing to, though its owner knows nothing of them. On the device
 * before the first is made and until the last is gone, so that whoever comes after a crash leads the VM back.
 */
export interface OverlayRecord {
  process: ProcessIdentity
  /** True if the overlays are complete. Until then no VM has written to one. */
  staged: boolean
  /** True while the overlays are being merged. Until then the owner's files are not written. */
  merging: boolean
  disks: RecordedOverlay[]
}

export interface RecordedOverlay {
  /** The owner's disk, to which everything goes back. */
  base: AttachedDisk & {
    inode: number
    /**
     * As the VM left the file when it changed to the overlay; absent when its captor did not live to see it.
     */
    mtimeMs?: number
  }
  /** Absolute, beside the base. */
  overlay: string
  overlayNode: string
  job: string
}

const RECORD_FILE = "overlays.json"

/** The record in an instance's directory, if there is one. */
export async function readOverlayRecord(home: string): Promise<OverlayRecord | undefined> {
  try {
    return JSON.parse(await readFile(join(home, RECORD_FILE), "utf8")) as OverlayRecord
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined
    throw error
  }
}

export async function writeOverlayRecord(home: string, record: OverlayRecord): Promise<void> {
  const path = join(home, RECORD_FILE)
  const file = await open(`${path}.new`, "w", 0o600)
  try {
    await file.writeFile(JSON.stringify(record))
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(`${path}.new`, path)
  await syncDirectory(home)
}

/** Only when no overlay of the record exists any more. */
export async function removeOverlayRecord(home: string): Promise<void> {
  await rm(join(home, RECORD_FILE), { force: true })
  await syncDirectory(home)
}

/** Removes a file so that no crash brings it back. */
export async function unlinkDurably(path: string): Promise<void> {
  await rm(path, { force: true })
  await syncDirectory(dirname(path))
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r")
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
