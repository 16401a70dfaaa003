import { once } from "node:events"
import { StillframeError } from "@stillframe/domain/errors"
import type { Logger } from "./logger.ts"

/** After SIGTERM a process has this long; queues may be down, and closing one then never returns. */
export const shutdownDeadlineMs = 20_000

/**
 * The life of a process: start, run until SIGTERM or SIGINT, give back in reverse order what `start` put on the stack, exit 0.
 * A mistake at the start ends in one sentence and status 1.
 */
export async function runProcess(
  log: Logger,
  start: (resources: AsyncDisposableStack) => Promise<void>,
): Promise<void> {
  const resources = new AsyncDisposableStack()
  const stopped = Promise.race([once(process, "SIGTERM"), once(process, "SIGINT")])
  try {
    await start(resources)
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
