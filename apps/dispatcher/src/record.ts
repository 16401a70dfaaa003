import type { OwnedDatabase } from "@stillframe/db/client"
import {
  failingSince,
  recordAttempts,
  recordHealth,
  type EndedAttempt,
} from "@stillframe/db/webhooks/delivery-outcomes"
import { disableWebhook, type Receiver } from "@stillframe/db/webhooks/disable"
import { isConnectionLoss } from "@stillframe/domain/postgres/connection-loss"
import type { DisabledReason } from "@stillframe/domain/webhook"
import type { Logger } from "@stillframe/runtime/logger"
import { goneStatus } from "./judge.ts"
import { logAttempts } from "./log-attempts.ts"

/**
 * A webhook that took nothing for this long is disabled when it lets a delivery's last try fail too: where
 * events are rare, two failures are all there was in that time.
 */
const failingMsMax = 5 * 24 * 3_600_000

export interface RecorderOptions {
  readonly db: OwnedDatabase
  readonly log: Logger
  /** Called after each write, with what was written: the room it took is free. */
  readonly onRecorded: (attempts: readonly EndedAttempt[]) => void
  /** Called when a webhook was disabled: an event tells of it, and what waits for it is to fail. */
  readonly onDisabled: () => void
}

export interface Recorder {
  record(attempt: EndedAttempt): void
  /** Resolves once everything handed over is written. */
  flush(): Promise<void>
}

/**
 * Writes attempts down, and what follows for their webhooks. What ends during a write makes up the next one.
 */
export function openRecorder({ db, log, onRecorded, onDisabled }: RecorderOptions): Recorder {
  let waiting: EndedAttempt[] = []
  const markedFailing = new Set<string>()
  let writing: Promise<void> | undefined

  async function writeAll(): Promise<void> {
    while (waiting.length > 0) {
      const batch = waiting
      waiting = []
      try {
        await write(batch)
      } catch (err) {
        // Their claims run out, and they are made again.
        if (!isConnectionLoss(err)) log.warn({ err, attempts: batch.length }, "attempts were not recorded")
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
    let deleted: readonly string[] = []
    try {
      ;[, deleted] = await Promise.all([recordAttempts(db, batch), recordChange(batch, { took, failed })])
    } finally {
      logAttempts(log, batch, deleted)
    }
    const gone = batch.filter(({ outcome }) => outcome.responseStatus === goneStatus)
    for (const receiver of receiversOf(gone)) await disable(receiver, "gone")
    const givenUp = batch.filter(({ outcome }) => !outcome.delivered && outcome.retryMs === undefined)
    if (givenUp.length === 0) return
    const overdue = await failingSince(db, webhooksOf(givenUp), failingMsMax)
    for (const receiver of receiversOf(givenUp))
      if (overdue.includes(receiver.id)) await disable(receiver, "failing")
  }

  /**
   * Returns the webhooks of `failed` that were deleted meanwhile. Most batches change nothing: their webhooks
   * were well when they were claimed for, and are. That another dispatcher has seen one fail since then is
   * put right by the next success.
   */
  async function recordChange(
    batch: readonly EndedAttempt[],
    { took, failed }: { took: readonly string[]; failed: readonly string[] },
  ): Promise<readonly string[]> {
    const failing = new Set([
      ...markedFailing,
      ...webhooksOf(batch.filter(({ delivery }) => delivery.failing)),
    ])
    const recovered = took.filter((id) => failing.has(id))
    if (recovered.length + failed.length === 0) return []
    const deleted = await recordHealth(db, { took: recovered, failed })
    for (const id of recovered) markedFailing.delete(id)
    for (const id of failed) markedFailing.add(id)
    return deleted
  }

  async function disable(receiver: Receiver, reason: DisabledReason): Promise<void> {
    if (!(await disableWebhook(db, receiver, reason))) return
    log.error({ webhookId: receiver.id, reason }, "webhook disabled")
    onDisabled()
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

function webhooksOf(attempts: readonly EndedAttempt[]): string[] {
  return [...new Set(attempts.map(({ delivery }) => delivery.webhookId))]
}

/** Each once, with the URL that was tried. */
function receiversOf(attempts: readonly EndedAttempt[]): Receiver[] {
  const receivers = attempts.map(({ delivery: { webhookId: id, url } }) => ({ id, url }))
  return [...new Map(receivers.map((receiver) => [`${receiver.id} ${receiver.url}`, receiver])).values()]
}
