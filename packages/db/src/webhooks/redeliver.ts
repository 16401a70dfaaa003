import { sql } from "kysely"
import { inTransaction, type OwnedDatabase } from "../client.ts"
import type { Database } from "../schema.ts"
import { pendingAgain } from "./resend-delivery.ts"
import { lockWebhook } from "./webhooks.ts"

/** Which events are to be delivered again; both ends included. */
export interface Redelivery {
  readonly webhookId: string
  readonly from: number
  readonly to: number
  /** `missed`: only what has failed or was never to be delivered. `all`: what has been delivered, too. */
  readonly what: "missed" | "all"
  /** Times of the events; their order may differ a little from that of their numbers. */
  readonly time?: TimeRange | undefined
}

/** `until` is not included. */
export interface TimeRange {
  readonly since: Date
  readonly until: Date
}

export interface Redelivered {
  readonly outcome: "done" | "stopped" | "disabled" | "gone"
  /** How many have become due. */
  readonly deliveries: number
  /** The sequence of the last examined event; one less than `from` if there was none. */
  readonly lastSequence: number
}

const limits = { eventsPerTransaction: 5_000, deliveriesPerCall: 10_000 }

/**
 * Makes a delivery pending, with all its tries before it, for each event of a range that the webhook's
 * filters match as they are now. It stops at a limit, or when `signal` says so, and can go on behind
 * `lastSequence`.
 */
export async function redeliver(
  db: OwnedDatabase,
  redelivery: Redelivery,
  {
    signal,
    eventsPerTransaction = limits.eventsPerTransaction,
    deliveriesPerCall = limits.deliveriesPerCall,
  }: { signal: AbortSignal } & Partial<typeof limits>,
): Promise<Redelivered> {
  let deliveries = 0
  let { from } = redelivery
  while (from <= redelivery.to) {
    const full = deliveries + eventsPerTransaction > deliveriesPerCall
    if (full || signal.aborted) return { outcome: "stopped", deliveries, lastSequence: from - 1 }
    // Numbers are dense, so this bounds what a transaction looks at, and what it writes.
    const to = Math.min(from + eventsPerTransaction - 1, redelivery.to)
    const made = await inTransaction(db, (tx) => redeliverBatch(tx, { ...redelivery, from, to }))
    if (typeof made === "string") return { outcome: made, deliveries, lastSequence: from - 1 }
    deliveries += made
    from = to + 1
  }
  return { outcome: "done", deliveries, lastSequence: from - 1 }
}

async function redeliverBatch(
  tx: Database,
  { webhookId, from, to, what, time }: Redelivery,
): Promise<number | "disabled" | "gone"> {
  // A concurrent disabling fails these deliveries with the others.
  const webhook = await lockWebhook(tx, webhookId)
  if (webhook === undefined) return "gone"
  if (!webhook.enabled) return "disabled"
  const { numInsertedOrUpdatedRows } = await tx
    .insertInto("deliveries")
    .columns(["webhook_id", "sequence"])
    .expression((values) =>
      values
        .selectFrom(["events", "webhooks"])
        .select(["webhooks.id", sql<number>`events.sequence`.as("sequence")])
        .where("webhooks.id", "=", webhookId)
        .where("events.sequence", ">=", from)
        .where("events.sequence", "<=", to)
        .$if(time !== undefined, (select) =>
          select
            .where("occurred_at", ">=", time?.since ?? new Date(0))
            .where("occurred_at", "<", time?.until ?? new Date(0)),
        )
        .where(sql<boolean>`webhook_matches(webhooks, events)`)
        .orderBy("events.sequence")
        // Else one that is being removed would fail the others.
        .forKeyShare("events"),
    )
    .onConflict((conflict) =>
      conflict
        .columns(["webhook_id", "sequence"])
        .doUpdateSet(pendingAgain)
        .where(what === "all" ? sql<boolean>`true` : sql<boolean>`deliveries.state = 'failed'`),
    )
    .executeTakeFirstOrThrow()
  return Number(numInsertedOrUpdatedRows ?? 0n)
}

/**
 * The first and the last event that happened in a time, with what has been numbered between them; undefined
 * when none did.
 */
export async function sequencesWithin(
  db: Database,
  { since, until }: TimeRange,
): Promise<{ from: number; to: number } | undefined> {
  const { from, to } = await db
    .selectFrom((from) =>
      from
        .selectFrom("events")
        .select("sequence")
        .where("sequence", "is not", null)
        .where("occurred_at", ">=", since)
        .where("occurred_at", "<", until)
        // Else Postgres looks for the ends by number, and goes through the log from its beginning.
        .offset(0)
        .as("within"),
    )
    .select(({ fn }) => [
      fn.min<number | null>("sequence").as("from"),
      fn.max<number | null>("sequence").as("to"),
    ])
    .executeTakeFirstOrThrow()
  return from === null || to === null ? undefined : { from, to }
}
