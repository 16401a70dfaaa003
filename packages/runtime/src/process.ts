import { once } from "node:events"
import { StillframeError } from "@stillframe/domain/errors"
import { logConsole } from "./console.ts"
import { processEnv, type Env } from "./env.ts"
import { createLogger, type Logger } from "./logger.ts"
import { logSettings } from "./settings.ts"

/** After SIGTERM a process has this long; queues may be down, and closing one then never returns. */
export const shutdownDeadlineMs = 20_000

/** What a process starts from. What it puts on the stack is given back in reverse order when it stops. */
export interface Start {
  readonly env: Env
  readonly log: Logger
  readonly resources: AsyncDisposableStack
}

/**
 * The life of a process: start, run until SIGTERM or SIGINT, give everything back, exit 0. A mistake at the start ends in
 * one sentence and status 1.
 */
export async function runProcess(service: string, start: (from: Start) => Promise<void>): Promise<void> {
  const env = processEnv()
  const log = createLogger({ service, level: logLevel(env) })
  const resources = new AsyncDisposableStack()
  resources.defer(logConsole(log))
  const stopped = Promise.race([once(process, "SIGTERM"), once(process, "SIGINT")])
  try {
    await start({ env, log, resources })
    log.info("started")
    await stopped
    log.info("stopping")
  } catch (error) {
    if (error instanceof StillframeError) log.fatal(error.message)
    else log.fatal({ err: error }, "could not start")
    process.exitCode = 1
  }
  setTimeout(() => {
    log.error("not stopped within its deadline")
    process.exit(1)
  }, shutdownDeadlineMs).unref()
  await resources.disposeAsync()
}

/** The level that the settings ask for; a wrong one is reported with the other mistakes, by the logger that this makes. */
export function logLevel(env: Env, fallback = "info"): string {
  return logSettings.LOG_LEVEL.catch("info").parse(env["LOG_LEVEL"] ?? fallback)
}
