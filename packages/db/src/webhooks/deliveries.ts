import type { EventEnvelope } from "@stillframe/domain/events"
import { sql } from "kysely"
import type { OwnedDatabase } from "../client.ts"
import { prepared } from "../connection/prepared.ts"
import { numberedAtOnce, toEnvelope, type EventRow } from "../events/events.ts"
import type { Database } from "../schema.ts"

/** A claim is held this long: the attempt's own time-out and some. */
export const claimMs = 20_000

/** In flight to one webhook, over all dispatchers. */
export const perWebhookMax = 16

/**
 * The same while there are nothing but failures, so that a receiver that hangs holds little of anybody's
 * room.
 */
const perFailingWebhookMax = 2

export interface ClaimedDelivery {
  readonly id: number
  readonly webhookId: string
  readonly sequence: number
  /** Counts from 1 in each round; this one included. */
  readonly attempt: number
  /** Identifies the claim: the exact text of `claimed_until`. */
  readonly claim: string
  readonly url: string
  /** The webhook took nothing since a failure. */
  readonly failing: boolean
  /** Encrypted, in Base64: the one that signs, and before the end of its grace the one that did. */
  readonly secret: string
  readonly previousSecret: string | null
}

export interface Claimed {
  /** Events that got their numbers, and are visible. */
  readonly numbered: number
  readonly deliveries: readonly ClaimedDelivery[]
  /** Those that the deliveries tell of, each once. */
  readonly events: readonly EventEnvelope[]
  /** The floors of webhooks that had something due, for a later turn. */
  readonly floors: DueFloors
}

/** For some webhooks, by id, when the oldest that was pending was due. */
export type DueFloors = Readonly<Record<string, string>>

/**
 * Numbers a batch of events and takes up to `room` deliveries that are due, from each webhook's oldest on and
 * from all of them in turn: from an event to its deliveries is one round trip and one commit. A claim is a
 * date in the future, not a held transaction, so nothing is locked while a receiver answers; a dispatcher
 * that dies leaves its deliveries due again after the claim's time. To start at the floors of earlier turns
 * is quicker, and misses what was written before them and committed after: every now and then there must be a
 * turn without.
 */
export async function numberAndClaim(
  db: OwnedDatabase,
  room: number,
  floors: DueFloors = {},
): Promise<Claimed> {
  const { rows } = await sql<{
    numbered: number
    deliveries: ClaimedDelivery[] | null
    events: (Omit<EventRow, "occurred_at"> & { occurred_at: string })[] | null
    next_floors: DueFloors | null
  }>`${prepared("number_and_claim")}
    select numbered, deliveries, events, next_floors from number_and_claim(
      ${numberedAtOnce.events}::int, ${numberedAtOnce.deliveries}::int, ${room}::int, ${claimMs}::int,
      ${perWebhookMax}::int, ${perFailingWebhookMax}::int, ${JSON.stringify(floors)}::jsonb)`.execute(db)
  const [turn] = rows
  return {
    numbered: turn?.numbered ?? 0,
    deliveries: turn?.deliveries ?? [],
    events: (turn?.events ?? []).map((row) => toEnvelope({ ...row, occurred_at: new Date(row.occurred_at) })),
    floors: turn?.next_floors ?? {},
  }
}

/** Gives back what was claimed and not tried, so that it is due again at once. */
export async function releaseDeliveries(db: Database, claimed: readonly ClaimedDelivery[]): Promise<void> {
  await sql`
    update deliveries set claimed_until = null
    from unnest(${claimed.map(({ id }) => id)}::bigint[], ${claimed.map(({ claim }) => claim)}::timestamptz[])
      as released (id, claim)
    where deliveries.id = released.id and claimed_until = released.claim`.execute(db)
}

/**
 * Milliseconds until the next delivery becomes due, or undefined when none waits. What is due already is not
 * asked for.
 */
export async function nextDeliveryInMs(db: Database): Promise<number | undefined> {
  const { rows } = await sql<{ ms: number | null }>`${prepared("next_delivery")}
    select ceil(extract(epoch from min(next.next_attempt_at) - (select clock())) * 1000)::float8 as ms
    from webhooks cross join lateral (
      select next_attempt_at from deliveries
      where webhook_id = webhooks.id and state = 'pending' and next_attempt_at > (select clock())
      order by next_attempt_at limit 1) as next
    where enabled`.execute(db)
  return rows[0]?.ms ?? undefined
}
