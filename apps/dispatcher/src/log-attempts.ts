import type { EndedAttempt } from "@stillframe/db/webhooks/delivery-outcomes"
import type { Logger } from "@stillframe/runtime/logger"

/**
 * Tells what attempts came to. `deleted`: the webhooks that are gone by now, of which nothing is tried again.
 */
export function logAttempts(
  log: Logger,
  attempts: readonly EndedAttempt[],
  deleted: readonly string[],
): void {
  for (const { delivery, outcome } of attempts) {
    const { id: deliveryId, webhookId, sequence, attempt } = delivery
    const { responseStatus, error, retryMs } = outcome
    const fields = { deliveryId, webhookId, sequence, attempt, responseStatus }
    // The database has a record of each success. A line in the log would cost more than the signature.
    if (outcome.delivered) log.debug(fields, "delivered")
    else if (deleted.includes(webhookId))
      log.info({ ...fields, error }, "delivery of a deleted webhook dropped")
    else if (retryMs === undefined) log.error({ ...fields, error }, "delivery given up")
    else log.warn({ ...fields, error, retryMs }, "delivery will be tried again")
  }
}
