import type { DisabledReason } from "@stillframe/domain/webhook"
import { clock, inTransaction, type OwnedDatabase } from "./client.ts"
import { appendWebhookEvent } from "./events.ts"
import { webhookColumns } from "./webhooks.ts"

/**
 * Disables a webhook for good reason: what waits for it has failed, and an event tells the others. False when it was
 * disabled or gone already. The numbering of events is held up meanwhile, or it could make a delivery that nobody ends.
 */
export function disableWebhook(db: OwnedDatabase, id: string, reason: DisabledReason): Promise<boolean> {
  return inTransaction(db, async (tx) => {
    await tx.selectFrom("event_head").select("sequence").forUpdate().execute()
    const webhook = await tx
      .updateTable("webhooks")
      .set({ enabled: false, disabled_reason: reason })
      .where("id", "=", id)
      .where("enabled", "=", true)
      .returning(webhookColumns)
      .executeTakeFirst()
    if (webhook === undefined) return false
    await tx
      .updateTable("deliveries")
      .set({ state: "failed", error: whyFailed[reason], ended_at: clock, claimed_until: null })
      .where("webhook_id", "=", id)
      .where("state", "=", "pending")
      .execute()
    await appendWebhookEvent(tx, "webhook.disabled", webhook)
    return true
  })
}

const whyFailed: Readonly<Record<DisabledReason, string>> = {
  gone: "the webhook was disabled: its receiver answered 410",
  failing: "the webhook was disabled: nothing but failures for 5 days",
}
