import { setTimeout as delay } from "node:timers/promises"
import { stopPostgresProcess, type PostgresProcess } from "./process.ts"

export interface KeeperLog {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

export interface KeptPostgres {
  readonly pid: () => number
  /** Ends Postgres, and a try to start it again. */
  stop(): Promise<void>
}

const pauseMsMin = 1_000
const pauseMsMax = 30_000
const failureLogMs = 60_000

/** Starts Postgres again each time that it ends by itself, for as long as it takes. `again` makes one try. */
export function keepRunning(
  first: PostgresProcess,
  { again, log }: { again: (signal: AbortSignal) => Promise<PostgresProcess>; log: KeeperLog },
): KeptPostgres {
  const stopping = new AbortController()
  const { signal } = stopping
  let current = first

  async function keep(): Promise<void> {
    for (;;) {
      const reason = await current.ended
      if (signal.aborted) return
      log.error({ reason }, "the embedded postgres ended by itself; starting it again")
      const startedMs = performance.now()
      current = await untilStarted({ again, log, signal })
      // A try that was under way when this was stopped has succeeded all the same.
      if (signal.aborted) return stopPostgresProcess(current.child)
      const downMs = Math.round(performance.now() - startedMs)
      log.info({ pid: current.child.pid, downMs }, "the embedded postgres runs again")
    }
  }

  const kept = keep().catch((error: unknown) => {
    if (!signal.aborted) throw error
  })
  return {
    pid: () => current.child.pid ?? 0,
    async stop() {
      stopping.abort()
      await stopPostgresProcess(current.child)
      await kept
    },
  }
}

async function untilStarted({
  again,
  log,
  signal,
}: {
  again: (signal: AbortSignal) => Promise<PostgresProcess>
  log: KeeperLog
  signal: AbortSignal
}): Promise<PostgresProcess> {
  let loggedMs = -Infinity
  for (let pauseMs = pauseMsMin; ; pauseMs = Math.min(pauseMs * 2, pauseMsMax)) {
    await delay(pauseMs, undefined, { signal })
    try {
      return await again(signal)
    } catch (error) {
      if (signal.aborted) throw error
      if (performance.now() - loggedMs < failureLogMs) continue
      loggedMs = performance.now()
      const reason = error instanceof Error ? error.message : String(error)
      log.warn({ reason }, "the embedded postgres could not be started again; trying on")
    }
  }
}
