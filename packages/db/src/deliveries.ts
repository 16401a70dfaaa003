import { sql } from "kysely"
import { clock, clockPlus } from "./client.ts"
import type { Database } from "./schema.ts"

/** A claim is held this long: the attempt's own time-out and some. */
const claimMs = 30_000

/** Makes a row for each event after `after` and each enabled webhook whose filters match the event's own data. */
export async function createDeliveries(tx: Database, { after }: { after: number }): Promise<void> {
  await sql`
    insert into deliveries (webhook_id, sequence)
    select webhooks.id, events.sequence
    from events, webhooks
    where events.sequence > ${after} and webhooks.enabled and case
      when events.type = 'webhook.test' then webhooks.id = events.subject_id
      else (webhooks.event_types = '[]' or webhooks.event_types ? events.type
          or webhooks.event_types ? (events.subject_kind || '.*'))
        and (webhooks.instance_ids = '[]'
          or webhooks.instance_ids ? coalesce(events.data ->> 'source_instance_id', events.subject_id))
        and coalesce(events.data -> 'tags', '{}') @> webhooks.tags
      end`.execute(tx)
}

export interface ClaimedDelivery {
  readonly id: number
  readonly webhookId: string
  readonly sequence: number
  /** Counts from 1; this one included. */
  readonly attempt: number
  readonly url: string
  readonly secret: Buffer
}

/**
 * Takes up to `limit` deliveries that are due. A claim is a date in the future, not a held transaction, so nothing is
 * locked while a receiver answers; a dispatcher that dies leaves them due again after the claim's time.
 */
export async function claimDeliveries(db: Database, limit: number): Promise<ClaimedDelivery[]> {
  const { rows } = await sql<ClaimedDelivery>`
    update deliveries set attempt = attempt + 1, next_attempt_at = ${clockPlus(claimMs)}
    from webhooks
    where webhooks.id = deliveries.webhook_id and deliveries.id in (
      select id from deliveries where state = 'pending' and next_attempt_at <= ${clock}
      order by next_attempt_at limit ${limit} for update skip locked)
    returning deliveries.id, webhook_id as "webhookId", sequence, attempt, url, secret`.execute(db)
  return rows
}

/** What an attempt came to. `retryMs`: when to try again; absent on a failure that was the last. */
export interface DeliveryOutcome {
  readonly delivered: boolean
  readonly responseStatus?: number | undefined
  readonly error?: string | undefined
  readonly retryMs?: number | undefined
}

export async function recordDelivery(db: Database, id: number, outcome: DeliveryOutcome): Promise<void> {
  const { delivered, retryMs } = outcome
  await db
    .updateTable("deliveries")
    .set({
      state: delivered ? "delivered" : retryMs === undefined ? "failed" : "pending",
      response_status: outcome.responseStatus ?? null,
      error: outcome.error ?? null,
      ...(retryMs !== undefined && { next_attempt_at: clockPlus(retryMs) }),
    })
    .where("id", "=", id)
    .execute()
}

/** Milliseconds until the next delivery is due, or undefined when none waits. */
export async function nextDeliveryInMs(db: Database): Promise<number | undefined> {
  const row = await db
    .selectFrom("deliveries")
    .select(
      sql<number | null>`ceil(extract(epoch from min(next_attempt_at) - ${clock}) * 1000)::int`.as("ms"),
    )
    .where("state", "=", "pending")
    .executeTakeFirst()
  return row?.ms ?? undefined
}
