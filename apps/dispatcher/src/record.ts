import type { OwnedDatabase } from "@stillframe/db/client"
import {
  failingSince,
  recordAttempts,
  recordHealth,
  type EndedAttempt,
} from "@stillframe/db/delivery-outcomes"
import { disableWebhook, failPending, type Receiver } from "@stillframe/db/disable-webhook"
import type { DisabledReason } from "@stillframe/domain/webhook"
import type { Logger } from "@stillframe/runtime/logger"
import { goneStatus } from "./judge.ts"
import { startLoop } from "./loop.ts"

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
  /** Resolves once everything handed over is written, and does nothing more. */
  flush(): Promise<void>
}

/** How soon somebody finds what was being written, or what a dispatcher that died has left. */
const failPendingEveryMs = 1_000

/**
 * Writes attempts down, and what follows for their webhooks. What ends during a write makes up the next one. What waits for
 * a webhook that was disabled may be a million deliveries, so it fails beside that.
 */
export function openRecorder({ db, log, onRecorded, onEvent }: RecorderOptions): Recorder {
  let waiting: EndedAttempt[] = []
  let writing: Promise<void> | undefined
  const failing = startLoop({
    name: "fail what waits for disabled webhooks",
    everyMs: failPendingEveryMs,
    async turn(signal) {
      while (!signal.aborted && (await failPending(db)) > 0);
    },
    log,
  })

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
    const gone = batch.filter(({ outcome }) => outcome.responseStatus === goneStatus)
    for (const receiver of receiversOf(gone)) await disable(receiver, "gone")
    const givenUp = batch.filter(({ outcome }) => !outcome.delivered && outcome.retryMs === undefined)
    if (givenUp.length === 0) return
    const overdue = await failingSince(db, webhooksOf(givenUp), failingMsMax)
    for (const receiver of receiversOf(givenUp))
      if (overdue.includes(receiver.id)) await disable(receiver, "failing")
  }

  async function disable(receiver: Receiver, reason: DisabledReason): Promise<void> {
    if (!(await disableWebhook(db, receiver, reason))) return
    log.error({ webhookId: receiver.id, reason }, "webhook disabled")
    onEvent()
    failing.wake()
  }

  return {
    record(attempt) {
      waiting.push(attempt)
      writing ??= writeAll()
    },
    async flush() {
      await writing
      await failing.stop()
    },
  }
}

function webhooksOf(attempts: readonly EndedAttempt[]): string[] {
  return [...new Set(attempts.map(({ delivery }) => delivery.webhookId))]
}

/** Each once, with the URL that was tried. */
function receiversOf(attempts: readonly EndedAttempt[]): Receiver[] {
  const receivers = attempts.map(({ delivery: { webhookId: id, url } }) => ({ id, url }))
  return [...new Map(receivers.map((receiver) => [`${receiver.id} ${receiver.url}`, receiver])).values()]
}
