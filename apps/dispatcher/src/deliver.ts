import type { OwnedDatabase } from "@stillframe/db/client"
import {
  claimDeliveries,
  nextDeliveryInMs,
  recordDelivery,
  type ClaimedDelivery,
  type DeliveryOutcome,
} from "@stillframe/db/deliveries"
import { getEvent } from "@stillframe/db/events"
import { deliveryRetryMs, withJitter } from "@stillframe/domain/events"
import type { Logger } from "@stillframe/runtime/logger"
import { openSecret } from "@stillframe/runtime/secrets"
import type { Dispatcher } from "undici"
import { postSigned } from "./post-signed.ts"

const concurrencyMax = 32

export interface DelivererOptions {
  readonly db: OwnedDatabase
  /** Opens the connections to receivers. */
  readonly agent: Dispatcher
  readonly secretsKey: string
  readonly log: Logger
  /** Called when an attempt has ended, so there is room for another. */
  readonly onRoom: () => void
}

export interface Deliverer {
  /** Starts an attempt for each delivery that is due, as far as there is room. Returns when the next one is due. */
  deliverDue(): Promise<number | undefined>
  /** Ends the attempts that run, which count as failed and are made again later, and waits for their records. */
  stop(): Promise<void>
}

export function openDeliverer({ db, agent, secretsKey, log, onRoom }: DelivererOptions): Deliverer {
  const stopped = new AbortController()
  const running = new Set<Promise<void>>()

  async function attempt(delivery: ClaimedDelivery): Promise<void> {
    const { id: deliveryId, webhookId, sequence, attempt } = delivery
    const fields = { deliveryId, webhookId, sequence, attempt }
    const outcome = await send(delivery)
    await recordDelivery(db, deliveryId, outcome)
    const { responseStatus, error, retryMs } = outcome
    if (outcome.delivered) log.info({ ...fields, responseStatus }, "delivered")
    else if (retryMs === undefined) log.error({ ...fields, responseStatus, error }, "delivery given up")
    else log.warn({ ...fields, responseStatus, error, retryMs }, "delivery will be tried again")
  }

  async function send(delivery: ClaimedDelivery): Promise<DeliveryOutcome> {
    try {
      const event = await getEvent(db, delivery.sequence)
      const secret = openSecret(secretsKey, delivery.secret)
      const responseStatus = await postSigned({
        url: delivery.url,
        id: event.id,
        body: JSON.stringify(event),
        secret,
        agent,
        signal: stopped.signal,
      })
      if (responseStatus >= 200 && responseStatus < 300) return { delivered: true, responseStatus }
      return failure(delivery, { responseStatus, error: `answered ${responseStatus}` })
    } catch (error) {
      return failure(delivery, { error: error instanceof Error ? error.message : String(error) })
    }
  }

  return {
    async deliverDue() {
      const room = concurrencyMax - running.size
      if (room === 0 || stopped.signal.aborted) return undefined
      for (const delivery of await claimDeliveries(db, room)) {
        const attempted = attempt(delivery)
          .catch((err: unknown) => log.warn({ err, deliveryId: delivery.id }, "a delivery was not recorded"))
          .finally(() => {
            running.delete(attempted)
            onRoom()
          })
        running.add(attempted)
      }
      return running.size < concurrencyMax ? nextDeliveryInMs(db) : undefined
    },
    async stop() {
      stopped.abort(new Error("the dispatcher stopped"))
      await Promise.all(running)
    },
  }
}

function failure(
  { attempt }: ClaimedDelivery,
  what: { responseStatus?: number; error: string },
): DeliveryOutcome {
  const delayMs = deliveryRetryMs[attempt - 1]
  return {
    delivered: false,
    ...what,
    ...(delayMs !== undefined && { retryMs: withJitter(delayMs, Math.random()) }),
  }
}
