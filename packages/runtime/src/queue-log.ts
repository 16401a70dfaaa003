import { StillframeError } from "@stillframe/domain/errors"
import { isConnectionLoss } from "@stillframe/domain/postgres/connection-loss"
import { openOutage } from "@stillframe/domain/postgres/outage"
import type { Logger } from "./logger.ts"

/**
 * For `openQueueEngine`: tells a lost Redis once, and so any trouble that the engine has words for. A queue
 * in Postgres is lost with the database, which tells it itself.
 */
export function queueLog(
  log: Logger,
  redisUrl: string | undefined,
): { onError: (error: Error) => void; onConnected: () => void } {
  const server = redisUrl === undefined ? "Postgres" : "Redis"
  const outage = openOutage(log, {
    lost: `the queue in ${server} can't be reached; trying again`,
    back: `the queue in ${server} can be reached again`,
  })
  return {
    onError(err) {
      const inWords = err instanceof StillframeError
      if (!inWords && !isConnectionLoss(err)) log.warn({ err }, "the queue reports an error")
      else if (inWords || redisUrl !== undefined) outage.failed(err)
    },
    onConnected: () => outage.worked(),
  }
}
