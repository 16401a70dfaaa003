import type { OwnedDatabase } from "@stillframe/db/client"
import {
  claimDeliveries,
  nextDeliveryInMs,
  releaseDeliveries,
  type ClaimedDelivery,
} from "@stillframe/db/deliveries"
import type { DeliveryOutcome } from "@stillframe/db/delivery-outcomes"
import { getEvents } from "@stillframe/db/events"
import type { Logger } from "@stillframe/runtime/logger"
import { openSecret } from "@stillframe/runtime/secrets"
import type { Dispatcher } from "undici"
import { judgeAnswer, judgeError } from "./judge.ts"
import { postSigned, type Answer } from "./post-signed.ts"
import { openRecorder } from "./record.ts"

/** In flight from one dispatcher, to all webhooks. Much more than to one, so that slow receivers leave room for others. */
const concurrencyMax = 256

/** What Standard Webhooks recommends for an attempt. */
const attemptMs = 15_000

export interface DelivererOptions {
  readonly db: OwnedDatabase
  /** Opens the connections to receivers. */
  readonly agent: Dispatcher
  readonly secretsKey: string
  /** An attempt may take this long; 15 s unless told otherwise. */
  readonly attemptMs?: number | undefined
  readonly log: Logger
  /** Called when attempts have ended, so there is room for others. */
  readonly onRoom: () => void
  /** Called when a webhook was disabled, of which an event tells. */
  readonly onEvent: () => void
}

export interface Deliverer {
  /** Starts an attempt for each delivery that is due, as far as there is room. Returns when the next one is due. */
  deliverDue(): Promise<number | undefined>
  /** Ends the attempts that run, which don't count and are made again, and waits for what has ended to be recorded. */
  stop(): Promise<void>
}

export function openDeliverer(options: DelivererOptions): Deliverer {
  const { db, log, onRoom, onEvent } = options
  const stopped = new AbortController()
  const running = new Set<Promise<void>>()
  const cutOff: ClaimedDelivery[] = []
  let room = concurrencyMax
  const recorder = openRecorder({
    db,
    log,
    onRecorded(attempts) {
      room += attempts.length
      onRoom()
    },
    onEvent,
  })

  async function attempt(delivery: ClaimedDelivery, event: SentEvent): Promise<void> {
    const startedAt = performance.now()
    const judged = await send(delivery, event).then(
      (answer) => judgeAnswer(delivery.attempt, answer),
      (error: unknown) => judgeError(delivery.attempt, error),
    )
    if (stopped.signal.aborted && judged.responseStatus === undefined) {
      cutOff.push(delivery)
      return
    }
    const outcome = { ...judged, durationMs: performance.now() - startedAt }
    logAttempt(log, delivery, outcome)
    recorder.record({ delivery, outcome })
  }

  async function send(delivery: ClaimedDelivery, event: SentEvent): Promise<Answer> {
    const sealed = [delivery.secret, delivery.previousSecret].filter((secret) => secret !== null)
    return postSigned({
      url: delivery.url,
      ...event,
      secrets: sealed.map((secret) => openSecret(options.secretsKey, secret)),
      agent: options.agent,
      timeoutMs: options.attemptMs ?? attemptMs,
      signal: stopped.signal,
    })
  }

  return {
    async deliverDue() {
      if (room === 0 || stopped.signal.aborted) return undefined
      const claimed = await claimDeliveries(db, room)
      if (claimed.length === 0) return nextDeliveryInMs(db)
      const events = await readEvents(db, claimed)
      for (const delivery of claimed) {
        const event = events.get(delivery.sequence)
        // Removed with its deliveries since the claim.
        if (event === undefined) continue
        room -= 1
        const attempted = attempt(delivery, event).finally(() => running.delete(attempted))
        running.add(attempted)
      }
      return undefined
    },
    async stop() {
      stopped.abort(new Error("the dispatcher stopped"))
      await Promise.all(running)
      await recorder.flush()
      if (cutOff.length > 0) await releaseDeliveries(db, cutOff)
    },
  }
}

interface SentEvent {
  readonly id: string
  /** The exact bytes, as text. */
  readonly body: string
}

/** One text per event, however many webhooks get it. */
async function readEvents(
  db: OwnedDatabase,
  claimed: readonly ClaimedDelivery[],
): Promise<Map<number, SentEvent>> {
  const events = await getEvents(db, [...new Set(claimed.map(({ sequence }) => sequence))])
  return new Map(
    events.map((event) => [event.sequence, { id: event.id, body: JSON.stringify(event) }] as const),
  )
}

function logAttempt(log: Logger, delivery: ClaimedDelivery, outcome: DeliveryOutcome): void {
  const { id: deliveryId, webhookId, sequence, attempt } = delivery
  const { responseStatus, error, retryMs } = outcome
  const fields = { deliveryId, webhookId, sequence, attempt, responseStatus }
  if (outcome.delivered) log.info(fields, "delivered")
  else if (retryMs === undefined) log.error({ ...fields, error }, "delivery given up")
  else log.warn({ ...fields, error, retryMs }, "delivery will be tried again")
}
