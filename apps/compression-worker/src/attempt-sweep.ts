import { readdir, rm, stat } from "node:fs/promises"
import { join } from "node:path"
import { snapshotBusy, tokenInUse } from "@stillframe/db/operations/open-operations"
import { removeEmpty } from "@stillframe/storage/directory"
import { fileTimeMs } from "@stillframe/storage/file-time"
import { manifestName, snapshotDir } from "@stillframe/storage/layout"
import type { Worker } from "./worker.ts"

/**
 * Younger ones may belong to a capture that is under way and not yet, or not any more, in the database's
 * view.
 */
const attemptAgeMsMin = 3_600_000

/**
 * Removes what captures have left whose workers died for good: attempts without a manifest, older than an
 * hour by the file system's clock, whose token no operation holds. One with a manifest is a whole snapshot
 * and never touched. A snapshot's directory goes once it has held nothing for an hour and no operation of the
 * snapshot is open.
 */
export async function removeDeadAttempts({ db, config, pool, log }: Omit<Worker, "guard">): Promise<void> {
  const snapshotIds = await readdir(join(config.storageDir, "snapshots")).catch(none)
  if (snapshotIds.length === 0) return
  await pool.identify()
  // The clock that gave the attempts their times: neither the database's nor this host's need be the same.
  const nowMs = await fileTimeMs(config.storageDir)
  for (const snapshotId of snapshotIds) {
    const dir = snapshotDir(config.storageDir, snapshotId)
    const tokens = await readdir(dir).catch(none)
    if (tokens.length === 0 && (await isOld(dir, nowMs)) && !(await snapshotBusy(db, snapshotId))) {
      await pool.identify()
      await removeEmpty(dir)
    }
    for (const token of tokens) {
      const attempt = join(dir, token)
      const names = await readdir(attempt).catch(none)
      if (names.includes(manifestName) || !(await isOld(attempt, nowMs))) continue
      if (await tokenInUse(db, token)) continue
      await pool.identify()
      log.warn({ snapshotId, token }, "attempt of a dead capture removed")
      await rm(attempt, { recursive: true, force: true })
    }
  }
}

async function isOld(dir: string, nowMs: number): Promise<boolean> {
  return nowMs - (await stat(dir)).mtimeMs >= attemptAgeMsMin
}

function none(error: NodeJS.ErrnoException): string[] {
  if (error.code === "ENOENT" || error.code === "ENOTDIR") return []
  throw error
}
