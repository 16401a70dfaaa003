import { isConnectionLoss } from "@stillframe/domain/connection-loss"
import { openOutage } from "@stillframe/domain/outage"
import type { Logger } from "./logger.ts"

/** For `openQueueEngine`: tells a lost Redis once. A queue in Postgres is lost with the database, which tells it itself. */
export function queueLog(
  log: Logger,
  redisUrl: string | undefined,
): { onError: (error: Error) => void; onConnected: () => void } {
  const outage = openOutage(log, {
    lost: "the queue in Redis can't be reached; trying again",
    back: "the queue in Redis can be reached again",
  })
  return {
    onError(err) {
      if (!isConnectionLoss(err)) log.warn({ err }, "the queue reports an error")
      else if (redisUrl !== undefined) outage.failed(err)
    },
    onConnected: () => outage.worked(),
  }
}
