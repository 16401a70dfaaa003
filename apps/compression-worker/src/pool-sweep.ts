import { rm } from "node:fs/promises"
import { join } from "node:path"
import { markMemoryRemoved, removableMemory } from "@stillframe/db/snapshots/readers"
import { StillframeError } from "@stillframe/domain/errors"
import { openTrouble } from "@stillframe/domain/postgres/outage"
import { removeUnusedImages } from "@stillframe/hypervisors/disks/image-store"
import { namesIn } from "@stillframe/storage/directory"
import { syncDir } from "@stillframe/storage/durable"
import { isMemoryFile, payloadDir } from "@stillframe/storage/layout"
import { removeDeadAttempts } from "./attempt-sweep.ts"
import { scrub } from "./scrub.ts"
import type { Worker } from "./worker.ts"

const memorySweepMs = 5_000
const attemptSweepMs = 600_000
const scrubMs = 60_000
const imageSweepMs = 600_000

/**
 * Removes memory files whose other form is published and which nobody reads: the raw one after its
 * compression, a compressed one after another. Any number of workers may do it at once: a file that is gone
 * already counts as removed.
 */
export async function removeSupersededMemory({
  db,
  pool: place,
  config: { pool, storageDir },
}: Omit<Worker, "guard">): Promise<void> {
  for (const { snapshotId, payload } of await removableMemory(db, { pool })) {
    const dir = payloadDir(storageDir, snapshotId, payload)
    const names = (await namesIn(dir)).filter(isMemoryFile)
    // Asked again: what a compression has begun since the first look is not to be taken for a leftover.
    await place.identify()
    for (const removable of await removableMemory(db, { pool, snapshotId })) {
      for (const name of names) if (name !== removable.memoryFile) await rm(join(dir, name), { force: true })
      await syncDir(dir)
      await place.identify()
      await markMemoryRemoved(db, removable)
    }
  }
}

/**
 * Removes the pool's images that no payload has a link to any more. A pool on the file system of DATA_DIR has
 * none of its own.
 */
async function removePoolImages({ config, log }: Worker): Promise<void> {
  const removed = await removeUnusedImages({ dir: join(config.storageDir, "images") })
  if (removed > 0) log.info({ removed }, "unused images removed")
}

/**
 * Looks every few seconds for memory files that a reader has held until now, every minute for a snapshot to
 * verify again, and every ten for dead attempts and unused images.
 */
export function startPoolSweep(worker: Worker): AsyncDisposable {
  const trouble = openTrouble(worker.log, { lost: "pool not swept", back: "the pool is swept again" })
  let running: Promise<void> = Promise.resolve()
  const every = (ms: number, sweep: (worker: Worker) => Promise<void>): NodeJS.Timeout =>
    setInterval(() => {
      running = running
        .then(() => worker.pool.during(() => sweep(worker)))
        .then(trouble.worked, (error: unknown) => {
          // One that is away is told by its watch, and swept when it is back.
          const away = error instanceof StillframeError && error.code === "storage_unavailable"
          if (!away) trouble.failed(error)
        })
    }, ms)
  const timers = [
    every(memorySweepMs, removeSupersededMemory),
    every(scrubMs, scrub),
    every(attemptSweepMs, removeDeadAttempts),
    every(imageSweepMs, removePoolImages),
  ]
  return {
    async [Symbol.asyncDispose]() {
      for (const timer of timers) clearInterval(timer)
      await running
    },
  }
}
