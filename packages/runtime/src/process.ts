import { StillframeError } from "@stillframe/domain/errors"
import { logConsole } from "./console.ts"
import { endNow, killSelf } from "./end-now.ts"
import { processEnv, type Env } from "./env.ts"
import { createLogger, type Logger } from "./logger.ts"
import { logSettings } from "./settings.ts"
import { onStopSignals, type StopRequest } from "./stop-signals.ts"

/** After SIGTERM a process has this long; queues may be down, and closing one then never returns. */
export const shutdownDeadlineMs = 20_000
const lingerMs = 1_000
/** A start that is told to stop has this long to release its resources. */
const startEndMs = 3_000

/** `resources` are disposed of in reverse order when the process stops. */
export interface Start {
  readonly env: Env
  readonly log: Logger
  readonly resources: AsyncDisposableStack
  /** Aborted when the process is asked to stop. */
  readonly stopping: AbortSignal
}

/**
 * The life of a process: start, run until SIGTERM, SIGINT or SIGHUP, give everything back, exit 0. A mistake
 * at the start ends in one sentence and status 1. A signal during the start ends it, and a second signal ends
 * the process at once.
 */
export async function runProcess(service: string, start: (from: Start) => Promise<void>): Promise<void> {
  const env = processEnv()
  const log = createLogger({ service, level: logLevel(env) })
  const resources = new AsyncDisposableStack()
  resources.defer(logConsole(log))
  // Not disposed of: a signal during the end of the process is the second one.
  const stop = onStopSignals(log)
  try {
    await untilAsked(start({ env, log, resources, stopping: stop.signal }), { stop, log })
  } catch (error) {
    if (error instanceof StillframeError) log.fatal({ said: error.said }, error.message)
    else log.fatal({ err: error }, "could not start")
    process.exitCode = 1
  }
  setTimeout(() => {
    log.error("not stopped within its deadline")
    killSelf()
  }, shutdownDeadlineMs).unref()
  await resources.disposeAsync()
  endSoon()
}

/** For a process that has given everything back: a timer that a library has left must not keep it. */
export function endSoon(): void {
  setTimeout(() => endNow(), lingerMs).unref()
}

async function untilAsked(
  starting: Promise<void>,
  { stop, log }: { stop: StopRequest; log: Logger },
): Promise<void> {
  const started = await Promise.race([starting.then(() => true), stop.asked.then(() => false)])
  if (started) log.info("started")
  await stop.asked
  log.info("stopping")
  if (started) return
  if (await settlesWithin(startEndMs, starting)) return
  // Safe as a crash is: the next start finds whatever this one has done so far.
  log.warn("the start did not end when it was told to: ending without it")
  endNow(0)
}

async function settlesWithin(ms: number, work: Promise<void>): Promise<boolean> {
  const { promise: late, resolve } = Promise.withResolvers<boolean>()
  const timer = setTimeout(() => resolve(false), ms)
  const settled = work.then(
    () => true,
    // The failure of a start that nobody waits for any longer.
    () => true,
  )
  return Promise.race([settled, late]).finally(() => clearTimeout(timer))
}

/**
 * The level that the settings ask for; a wrong one is reported with the other mistakes, by the logger that
 * this makes.
 */
export function logLevel(env: Env, fallback = "info"): string {
  return logSettings.LOG_LEVEL.catch("info").parse(env["LOG_LEVEL"] ?? fallback)
}
