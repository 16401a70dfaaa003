import type { DisabledReason } from "@stillframe/domain/webhook"
import { sql } from "kysely"
import { clock, inTransaction, type OwnedDatabase } from "../client.ts"
import { appendWebhookEvent } from "../events/events.ts"
import type { Database } from "../schema.ts"
import { webhookColumns } from "./webhooks.ts"

/** A webhook, with the URL that it had when its receiver gave reason to disable it. */
export interface Receiver {
  readonly id: string
  readonly url: string
}

/**
 * Disables a webhook for good reason, if it still has that URL, and has an event tell the others. False when
 * it was disabled, changed or gone already. What waits for it is left to `failPending`. The numbering of
 * events is held up meanwhile, or it could make a delivery after everything that waits has failed.
 */
export function disableWebhook(
  db: OwnedDatabase,
  { id, url }: Receiver,
  reason: DisabledReason,
): Promise<boolean> {
  return inTransaction(db, async (tx) => {
    await tx.selectFrom("event_head").select("sequence").forUpdate().execute()
    const webhook = await tx
      .updateTable("webhooks")
      .set({ enabled: false, disabled_reason: reason })
      .where("id", "=", id)
      .where("url", "=", url)
      .where("enabled", "=", true)
      .returning(webhookColumns)
      .executeTakeFirst()
    if (webhook === undefined) return false
    await appendWebhookEvent(tx, "webhook.disabled", webhook)
    return true
  })
}

const failedPerRound = 1_000

/**
 * Fails some of what waits for webhooks that were disabled for good reason; returns how many. They can't be
 * enabled in the meantime, so nothing fails that was asked for after that; what has not failed before is
 * delivered. It waits for nobody: rows that somebody else is writing are left for another round.
 */
export async function failPending(db: Database): Promise<number> {
  const { numAffectedRows } = await sql`
    with disabled as (
      select id, disabled_reason from webhooks
      where not enabled and disabled_reason is not null
        and exists (select from deliveries where webhook_id = webhooks.id and state = 'pending')
      for share skip locked
    ), failing as (
      select waiting.id, disabled_reason from disabled cross join lateral (
        select id from deliveries where webhook_id = disabled.id and state = 'pending'
        limit ${failedPerRound}::int for update skip locked) as waiting
      limit ${failedPerRound}::int
    )
    update deliveries set state = 'failed', ended_at = ${clock}, claimed_until = null,
      error = ${JSON.stringify(whyFailed)}::jsonb ->> disabled_reason
    from failing where deliveries.id = failing.id`.execute(db)
  return Number(numAffectedRows ?? 0n)
}

const whyFailed: Readonly<Record<DisabledReason, string>> = {
  gone: "the webhook was disabled: its receiver answered 410",
  failing: "the webhook was disabled: nothing but failures for 5 days",
}
