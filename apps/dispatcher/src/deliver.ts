import type { OwnedDatabase } from "@stillframe/db/client"
import {
  nextDeliveryInMs,
  numberAndClaim,
  releaseDeliveries,
  type ClaimedDelivery,
} from "@stillframe/db/webhooks/deliveries"
import type { EventEnvelope } from "@stillframe/domain/events"
import type { Logger } from "@stillframe/runtime/logger"
import type { Agents } from "./address-guard.ts"
import { keepFloors } from "./due-floors.ts"
import { judgeAnswer, judgeError } from "./judge.ts"
import { postSigned, type Answer } from "./post-signed.ts"
import { openRecorder } from "./record.ts"
import { openSigningKeys } from "./signing-keys.ts"

/**
 * In flight from one dispatcher, to all webhooks. Much more than to one, so that slow receivers leave room
 * for others.
 */
const concurrencyMax = 256

/** Standard Webhooks recommends this for an attempt. */
const attemptMs = 15_000

export interface DelivererOptions {
  readonly db: OwnedDatabase
  /** Opens the connections to receivers. */
  readonly agents: Agents
  readonly secretsKey: string
  /** An attempt may take this long; 15 s unless told otherwise. */
  readonly attemptMs?: number | undefined
  readonly log: Logger
  /**
   * Called when another turn is worth while: attempts have ended, so there is room for others, or an event
   * waits.
   */
  readonly onWork: () => void
  /** Called when events got their numbers: whoever reads them finds them now. */
  readonly onNumbered: () => void
  /** Called when a webhook was disabled: an event tells of it, and what waits for it is to fail. */
  readonly onDisabled: () => void
}

export interface Deliverer {
  /**
   * Numbers the events that wait and starts an attempt for each delivery that is due, as far as there is
   * room. Returns in how many milliseconds there is more to do.
   */
  turn(): Promise<number | undefined>
  /**
   * Ends the attempts that run, which don't count and are made again, and waits for what has ended to be
   * recorded.
   */
  stop(): Promise<void>
}

export function openDeliverer(options: DelivererOptions): Deliverer {
  const { db, log, onWork, onNumbered, onDisabled } = options
  const stopped = new AbortController()
  const running = new Set<Promise<void>>()
  const cutOff: ClaimedDelivery[] = []
  const keys = openSigningKeys(options.secretsKey)
  const floors = keepFloors()
  let room = concurrencyMax
  const recorder = openRecorder({
    db,
    log,
    onRecorded(attempts) {
      room += attempts.length
      onWork()
    },
    onDisabled,
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
    recorder.record({ delivery, outcome })
  }

  async function send(delivery: ClaimedDelivery, event: SentEvent): Promise<Answer> {
    const { url, secret, previousSecret } = delivery
    const sealed = previousSecret === null ? [secret] : [secret, previousSecret]
    return postSigned({
      url,
      ...event,
      keys: sealed.map((one) => keys.open(one)),
      agents: options.agents,
      timeoutMs: options.attemptMs ?? attemptMs,
      signal: stopped.signal,
    })
  }

  function start(deliveries: readonly ClaimedDelivery[], events: readonly EventEnvelope[]): void {
    for (const [delivery, event] of withEvents(deliveries, events)) {
      room -= 1
      const attempted = attempt(delivery, event).finally(() => running.delete(attempted))
      running.add(attempted)
    }
  }

  return {
    async turn() {
      if (stopped.signal.aborted) return undefined
      const { numbered, deliveries, events, ...next } = await numberAndClaim(db, room, floors.current())
      floors.raise(next.floors)
      start(deliveries, events)
      if (numbered > 0) {
        onNumbered()
        // There may be more, of events and of deliveries.
        return 0
      }
      return deliveries.length > 0 || room === 0 ? undefined : nextDeliveryInMs(db)
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
function withEvents(
  deliveries: readonly ClaimedDelivery[],
  events: readonly EventEnvelope[],
): [ClaimedDelivery, SentEvent][] {
  const sent = new Map(
    events.map((event) => [event.sequence, { id: event.id, body: JSON.stringify(event) }] as const),
  )
  return deliveries.map((delivery) => {
    const event = sent.get(delivery.sequence)
    // Never so: an event stays as long as its deliveries.
    if (event === undefined) throw new Error(`event ${delivery.sequence} is missing`)
    return [delivery, event]
  })
}
