import type { OwnedDatabase } from "@stillframe/db/client"
import {
  failingSince,
  recordAttempts,
  recordHealth,
  type DeliveryOutcome,
  type EndedAttempt,
} from "@stillframe/db/delivery-outcomes"
import { disableWebhook } from "@stillframe/db/disable-webhook"
import type { Logger } from "@stillframe/runtime/logger"
import { goneStatus } from "./judge.ts"

/**
 * A webhook that took nothing for this long is disabled when it lets a delivery's last try fail too: where events are rare,
 * two failures are all there was in that time.
 */
const failingMsMax = 5 * 24 * 3_600_000

export interface RecorderOptions {
  readonly db: OwnedDatabase
  readonly log: Logger
  /** Called after each write, with what was written: the room it took is free. */
  readonly onRecorded: (attempts: readonly EndedAttempt[]) => void
  /** Called when an event was appended. */
  readonly onEvent: () => void
}

export interface Recorder {
  record(attempt: EndedAttempt): void
  /** Resolves once everything handed over is written. */
  flush(): Promise<void>
}

/** Writes attempts down, and what follows for their webhooks. What ends during a write makes up the next one. */
export function openRecorder({ db, log, onRecorded, onEvent }: RecorderOptions): Recorder {
  let waiting: EndedAttempt[] = []
  let writing: Promise<void> | undefined

  async function writeAll(): Promise<void> {
    while (waiting.length > 0) {
      const batch = waiting
      waiting = []
      try {
        await write(batch)
      } catch (err) {
        // Their claims run out, and they are made again.
        log.warn({ err, attempts: batch.length }, "attempts were not recorded")
      }
      onRecorded(batch)
    }
    writing = undefined
  }

  async function write(batch: readonly EndedAttempt[]): Promise<void> {
    const took = webhooksOf(batch.filter(({ outcome }) => outcome.delivered))
    const failed = webhooksOf(batch.filter(({ outcome }) => !outcome.delivered)).filter(
      (id) => !took.includes(id),
    )
    await Promise.all([recordAttempts(db, batch), recordHealth(db, { took, failed })])
    if (failed.length === 0) return
    const gone = webhooksOf(batch.filter(({ outcome }) => outcome.responseStatus === goneStatus))
    for (const id of gone) await disable(id, "gone")
    const gaveUp = webhooksOf(batch.filter(({ outcome }) => isGivenUp(outcome)))
    if (gaveUp.length === 0) return
    for (const id of await failingSince(db, gaveUp, failingMsMax)) await disable(id, "failing")
  }

  async function disable(webhookId: string, reason: "gone" | "failing"): Promise<void> {
    if (!(await disableWebhook(db, webhookId, reason))) return
    log.error({ webhookId, reason }, "webhook disabled")
    onEvent()
  }

  return {
    record(attempt) {
      waiting.push(attempt)
      writing ??= writeAll()
    },
    async flush() {
      await writing
    },
  }
}

function isGivenUp({ delivered, retryMs }: DeliveryOutcome): boolean {
  return !delivered && retryMs === undefined
}

function webhooksOf(attempts: readonly EndedAttempt[]): string[] {
  return [...new Set(attempts.map(({ delivery }) => delivery.webhookId))]
}
