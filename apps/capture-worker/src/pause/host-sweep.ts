import { join } from "node:path"
import { loadAdapters } from "@stillframe/hypervisors/hypervisor-of"
import type { Logger } from "@stillframe/runtime/logger"
import { namesIn } from "@stillframe/storage/directory"
import { takeOver, type Growth } from "./takeover.ts"

const sweepIntervalMs = 1_000

/**
 * Looks, now and every second, for VMs on this host that a dead captor left paused, and resumes them. It goes
 * by what lies on this host's own disk, so it works with the database and the queue down. Resolves after the
 * first round.
 */
export async function startHostSweep(dataDir: string, log: Logger, grown: Growth): Promise<AsyncDisposable> {
  const rounds = new Set<Promise<void>>()
  const underWay = new Set<string>()
  await sweepHost(dataDir, log)
  const timer = setInterval(() => {
    const round = sweepHost(dataDir, log, { grown, underWay })
    rounds.add(round)
    void round.finally(() => rounds.delete(round))
  }, sweepIntervalMs)
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(timer)
      await Promise.all(rounds)
    },
  }
}

/**
 * One round: for whoever starts, before anything else. `underWay`: the instances that rounds before this one
 * are still at. A VM may not answer until a save is over, and others must not stand still for so long.
 */
export async function sweepHost(
  dataDir: string,
  log: Logger,
  { grown, underWay = new Set() }: { grown?: Growth; underWay?: Set<string> } = {},
): Promise<void> {
  await loadAdapters()
  const instances = await namesIn(join(dataDir, "instances")).catch((err: unknown): string[] => {
    log.error({ err }, "host not swept")
    return []
  })
  await Promise.all(
    instances.map(async (instanceId) => {
      if (underWay.has(instanceId)) return
      underWay.add(instanceId)
      try {
        const outcome = await takeOver(dataDir, instanceId, grown)
        if (outcome === "resumed" || outcome === "gone")
          log.warn({ instanceId, outcome }, "resumed a VM whose executor process had died")
      } catch (err) {
        // The next round tries again; a VM that stays paused must not go unheard.
        log.error({ err, instanceId }, "vm may be paused and could not be resumed")
      } finally {
        underWay.delete(instanceId)
      }
    }),
  )
}
