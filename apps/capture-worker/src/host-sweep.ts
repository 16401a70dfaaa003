import { join } from "node:path"
import type { Logger } from "@stillframe/runtime/logger"
import { namesIn } from "@stillframe/storage/directory"
import { takeOver, type Growth } from "./takeover.ts"

const sweepIntervalMs = 1_000

/**
 * Looks, now and every second, for VMs on this host that a dead captor left paused, and resumes them. It goes by what
 * lies on this host's own disk, so it works with the database and the queue down. Resolves after the first round.
 */
export async function startHostSweep(dataDir: string, log: Logger, grown: Growth): Promise<AsyncDisposable> {
  let running: Promise<void> = Promise.resolve()
  await sweepHost(dataDir, log)
  const timer = setInterval(() => {
    running = running.then(() => sweepHost(dataDir, log, grown))
  }, sweepIntervalMs)
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(timer)
      await running
    },
  }
}

/** One round: for whoever starts, before anything else. */
export async function sweepHost(dataDir: string, log: Logger, grown?: Growth): Promise<void> {
  const instances = await namesIn(join(dataDir, "instances"))
  await Promise.all(
    instances.map(async (instanceId) => {
      try {
        const outcome = await takeOver(dataDir, instanceId, grown)
        if (outcome === "resumed" || outcome === "gone")
          log.warn({ instanceId, outcome }, "took over from a dead captor")
      } catch (err) {
        // The next round tries again; a VM that stays paused must not go unheard.
        log.error({ err, instanceId }, "vm may be paused and could not be resumed")
      }
    }),
  )
}
