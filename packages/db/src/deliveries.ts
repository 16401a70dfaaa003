import { sql } from "kysely"
import { clockPlus, inTransaction, type OwnedDatabase } from "./client.ts"
import { prepared } from "./prepared.ts"
import type { Database } from "./schema.ts"
import { webhookMatches } from "./webhook-filter.ts"

/** A claim is held this long: the attempt's own time-out and some. */
export const claimMs = 20_000

/** In flight to one webhook, over all dispatchers. */
export const perWebhookMax = 16

/** The same while there are nothing but failures, so that a receiver that hangs holds little of anybody's room. */
const perFailingWebhookMax = 2

/** Makes a row for each event after `after` and each enabled webhook whose filters match the event's own data. */
export async function createDeliveries(tx: Database, { after }: { after: number }): Promise<void> {
  await sql`
    insert into deliveries (webhook_id, sequence)
    select webhooks.id, events.sequence
    from events, webhooks
    where events.sequence > ${after} and webhooks.enabled and ${webhookMatches}`.execute(tx)
}

export interface ClaimedDelivery {
  readonly id: number
  readonly webhookId: string
  readonly sequence: number
  /** Counts from 1 in each round; this one included. */
  readonly attempt: number
  /** Whose claim it is: the exact text of `claimed_until`. */
  readonly claim: string
  readonly url: string
  /** Encrypted: the one that signs, and before the end of its grace the one that did. */
  readonly secret: Buffer
  readonly previousSecret: Buffer | null
}

/**
 * Takes up to `limit` deliveries that are due, from each webhook's oldest on and from all of them in turn. A claim is a
 * date in the future, not a held transaction, so nothing is locked while a receiver answers; a dispatcher that dies leaves
 * its deliveries due again after the claim's time.
 */
export function claimDeliveries(db: OwnedDatabase, limit: number): Promise<ClaimedDelivery[]> {
  return inTransaction(db, async (tx) => {
    const ids = await lockDue(tx)
    return ids.length === 0 ? [] : claimOf(tx, ids, limit)
  })
}

/** Read once for the whole statement: as a function that may change, it would be no bound for an index. */
const nowOnce = sql`(select clock())`

/**
 * Webhooks with something due. Who holds their locks is the only one that claims for them, so the limit per webhook is
 * kept. What another dispatcher holds is left to it.
 */
async function lockDue(tx: Database): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`${prepared("lock_due_webhooks")}
    select id from webhooks
    where enabled and exists (
      select from deliveries where webhook_id = webhooks.id and state = 'pending' and next_attempt_at <= ${nowOnce}
        and (claimed_until is null or claimed_until <= ${nowOnce}))
    for no key update skip locked`.execute(tx)
  return rows.map(({ id }) => id)
}

/**
 * A statement of its own, because its snapshot must be younger than the locks. It is written so that each step goes by an
 * index whatever the statistics say: an array and an order with a limit leave the planner no better way.
 */
async function claimOf(tx: Database, ids: readonly string[], limit: number): Promise<ClaimedDelivery[]> {
  const { rows } = await sql<ClaimedDelivery>`${prepared("claim_deliveries")}
    with room as (
      select webhooks.*, case when failing_since is null then ${perWebhookMax}::int else ${perFailingWebhookMax}::int end - (
        select count(*) from (
          select from deliveries where webhook_id = webhooks.id and state = 'pending' and claimed_until > ${nowOnce}
          order by claimed_until desc limit ${perWebhookMax}::int) as in_flight) as free
      from webhooks where id = any(${ids}::text[])
    ), chosen as (
      select due.id
      from room cross join lateral (
        select id, next_attempt_at, row_number() over (order by next_attempt_at) as turn from (
          select id, next_attempt_at from deliveries
          where webhook_id = room.id and state = 'pending' and next_attempt_at <= ${nowOnce}
            and (claimed_until is null or claimed_until <= ${nowOnce})
          order by next_attempt_at limit greatest(0, least(free, ${limit}::int))) as oldest) as due
      order by turn, next_attempt_at limit ${limit}::int
    )
    update deliveries set claimed_until = ${clockPlus(claimMs)} from webhooks
    where deliveries.id = any(array(select id from chosen)) and state = 'pending' and webhooks.id = webhook_id
    returning deliveries.id, webhook_id as "webhookId", sequence, attempt + 1 as attempt,
      claimed_until::text as claim, url, secret,
      case when previous_secret_until > ${nowOnce} then previous_secret end as "previousSecret"`.execute(tx)
  return rows
}

/** Gives back what was claimed and not tried, so that it is due again at once. */
export async function releaseDeliveries(db: Database, claimed: readonly ClaimedDelivery[]): Promise<void> {
  await sql`
    update deliveries set claimed_until = null
    from unnest(${claimed.map(({ id }) => id)}::bigint[], ${claimed.map(({ claim }) => claim)}::timestamptz[])
      as released (id, claim)
    where deliveries.id = released.id and claimed_until = released.claim`.execute(db)
}

/** Milliseconds until the next delivery becomes due, or undefined when none waits. What is due already is not asked for. */
export async function nextDeliveryInMs(db: Database): Promise<number | undefined> {
  const { rows } = await sql<{ ms: number | null }>`${prepared("next_delivery")}
    select ceil(extract(epoch from min(next.next_attempt_at) - ${nowOnce}) * 1000)::float8 as ms
    from webhooks cross join lateral (
      select next_attempt_at from deliveries
      where webhook_id = webhooks.id and state = 'pending' and next_attempt_at > ${nowOnce}
      order by next_attempt_at limit 1) as next
    where enabled`.execute(db)
  return rows[0]?.ms ?? undefined
}
