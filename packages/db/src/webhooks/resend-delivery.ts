import { clock } from "../client.ts"
import type { Database } from "../schema.ts"
import { lockWebhook } from "./webhooks.ts"

/**
 * Makes a delivery pending again, as if nothing had been tried; what was tried stays on record. In the
 * caller's transaction, with the webhook locked: whoever disables it meanwhile fails this one with the
 * others.
 */
export async function resendDelivery(
  tx: Database,
  { id, webhookId }: { id: number; webhookId: string },
): Promise<"resent" | "disabled" | "gone"> {
  const webhook = await lockWebhook(tx, webhookId)
  if (webhook === undefined) return "gone"
  if (!webhook.enabled) return "disabled"
  const { numUpdatedRows } = await tx
    .updateTable("deliveries")
    .set(pendingAgain)
    .where("id", "=", id)
    .executeTakeFirst()
  return numUpdatedRows === 1n ? "resent" : "gone"
}

/**
 * Makes a delivery pending again. An attempt in flight loses its claim, so its failure, perhaps the last of
 * the round before, does not end this one; a receiver may see both.
 */
export const pendingAgain = {
  state: "pending",
  attempt: 0,
  next_attempt_at: clock,
  claimed_until: null,
  ended_at: null,
} as const
