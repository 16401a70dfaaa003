import type { AttemptRecord, DeliveryRecord, DeliveryState } from "@stillframe/domain/delivery"
import { sql, type SelectQueryBuilder } from "kysely"
import type { Database, Schema } from "../schema.ts"

/** The attempts of one delivery, oldest first; those before the newest hundred are not shown. */
const attemptsShownMax = 100

export interface DeliveryQuery {
  readonly webhookId: string
  readonly state?: DeliveryState | undefined
  readonly limit: number
  /** The sequence of the last one of the page before. */
  readonly before?: number | undefined
}

/** Those of the newest events first. `next`: what `before` of the next page is; absent on the last. */
export async function listDeliveries(
  db: Database,
  { webhookId, state, limit, before }: DeliveryQuery,
): Promise<{ rows: DeliveryRecord[]; next?: number }> {
  const rows = await selectDeliveries(db)
    .where("deliveries.webhook_id", "=", webhookId)
    .$if(state !== undefined, (select) => select.where("deliveries.state", "=", state ?? "pending"))
    .$if(before !== undefined, (select) => select.where("deliveries.sequence", "<", before ?? 0))
    .orderBy("deliveries.sequence", "desc")
    // The one too many says that there is more.
    .limit(limit + 1)
    .execute()
  const last = rows.length > limit ? rows[limit - 1] : undefined
  return last === undefined ? { rows } : { rows: rows.slice(0, limit), next: last.sequence }
}

export async function findDelivery(db: Database, id: number): Promise<DeliveryRecord | undefined> {
  return selectDeliveries(db).where("deliveries.id", "=", id).executeTakeFirst()
}

/** Oldest first. */
export async function listAttempts(db: Database, deliveryId: number): Promise<AttemptRecord[]> {
  const newest = await db
    .selectFrom("delivery_attempts")
    .select(["attempted_at", "duration_ms", "response_status", "response_body", "error"])
    .where("delivery_id", "=", deliveryId)
    .orderBy("id", "desc")
    .limit(attemptsShownMax)
    .execute()
  return newest.toReversed()
}

function selectDeliveries(db: Database): SelectQueryBuilder<Schema, "deliveries" | "events", DeliveryRecord> {
  return db
    .selectFrom("deliveries")
    .innerJoin("events", "events.sequence", "deliveries.sequence")
    .select([
      "deliveries.id",
      "deliveries.webhook_id",
      "deliveries.sequence",
      "events.event_id",
      "events.type as event_type",
      "deliveries.state",
      "deliveries.next_attempt_at",
      "deliveries.ended_at",
      "deliveries.response_status",
      "deliveries.error",
      sql<number>`(select count(*) from delivery_attempts where delivery_id = deliveries.id)`.as(
        "attempt_count",
      ),
    ])
}
