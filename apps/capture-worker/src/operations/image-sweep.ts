import { join } from "node:path"
import { hostImages, removeUnusedImages, storedNames } from "@stillframe/hypervisors/disks/image-store"
import { forgetUnused } from "@stillframe/hypervisors/disks/known-images"
import type { Worker } from "../worker.ts"

const sweepIntervalMs = 60_000

/** Removes this host's images that no VM, payload or fork has a link to any more, now and every minute. */
export function startImageSweep(worker: Pick<Worker, "config" | "home" | "log">): AsyncDisposable {
  let running = Promise.resolve()
  const sweep = (): void => {
    running = running
      .then(() => worker.home.during(() => sweepImages(worker)))
      .catch((err: unknown) => worker.log.warn({ err }, "images not swept"))
  }
  sweep()
  const timer = setInterval(sweep, sweepIntervalMs)
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(timer)
      await running
    },
  }
}

async function sweepImages({
  config: { dataDir, storageDir },
  log,
}: Pick<Worker, "config" | "log">): Promise<void> {
  const store = hostImages(dataDir)
  const removed = await removeUnusedImages(store)
  if (removed > 0) log.info({ removed }, "unused images removed")
  const stored = [await storedNames(store.dir), await storedNames(join(storageDir, "images"))]
  await forgetUnused(store, new Set(stored.flat()))
}
