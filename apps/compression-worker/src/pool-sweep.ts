import { rm } from "node:fs/promises"
import { join } from "node:path"
import { markRawRemoved, removableRawFiles } from "@stillframe/db/readers"
import { syncDir } from "@stillframe/storage/durable"
import { payloadDir, rawMemoryName } from "@stillframe/storage/layout"
import { removeDeadAttempts } from "./attempt-sweep.ts"
import type { Worker } from "./worker.ts"

const rawSweepMs = 5_000
const attemptSweepMs = 600_000

/**
 * Removes raw memory files whose compressed form is published and which nobody reads. Any number of workers may do it at
 * once: a file that is gone already counts as removed.
 */
export async function removeRawFiles({ db, config }: Worker): Promise<void> {
  for (const { snapshotId, payload } of await removableRawFiles(db, config.pool)) {
    const dir = payloadDir(config.storageDir, snapshotId, payload)
    await rm(join(dir, rawMemoryName), { force: true })
    await syncDir(dir)
    await markRawRemoved(db, snapshotId)
  }
}

/** Looks every few seconds for raw files that a reader has held until now, and every ten minutes for dead attempts. */
export function startPoolSweep(worker: Worker): AsyncDisposable {
  let running: Promise<void> = Promise.resolve()
  const every = (ms: number, sweep: (worker: Worker) => Promise<void>): NodeJS.Timeout =>
    setInterval(() => {
      running = running
        .then(() => sweep(worker))
        .catch((err: unknown) => worker.log.warn({ err }, "pool not swept"))
    }, ms)
  const timers = [every(rawSweepMs, removeRawFiles), every(attemptSweepMs, removeDeadAttempts)]
  return {
    async [Symbol.asyncDispose]() {
      for (const timer of timers) clearInterval(timer)
      await running
    },
  }
}
