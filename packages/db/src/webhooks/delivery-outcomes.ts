import { sql } from "kysely"
import { clock, clockPlus } from "../client.ts"
import { prepared } from "../connection/prepared.ts"
import type { Database } from "../schema.ts"
import { claimMs, type ClaimedDelivery } from "./deliveries.ts"

/** The outcome of an attempt. */
export interface DeliveryOutcome {
  readonly delivered: boolean
  readonly durationMs: number
  readonly responseStatus?: number | undefined
  /** The answer's beginning. */
  readonly responseBody?: string | undefined
  readonly error?: string | undefined
  /** When to try again; absent on a failure that was the last. */
  readonly retryMs?: number | undefined
}

export interface EndedAttempt {
  readonly delivery: ClaimedDelivery
  readonly outcome: DeliveryOutcome
}

/**
 * Writes attempts down and moves their deliveries on. A success always counts. A failure only while its claim
 * lasts: a delivery that somebody else has claimed since, or that was asked for again, is theirs to judge.
 */
export async function recordAttempts(db: Database, attempts: readonly EndedAttempt[]): Promise<void> {
  await sql`${prepared("record_attempts")}
    select record_attempts(${JSON.stringify(attempts.map(toRecord))}::jsonb, ${claimMs}::int)`.execute(db)
}

function toRecord({ delivery, outcome }: EndedAttempt): Record<string, unknown> {
  const { delivered, retryMs } = outcome
  return {
    id: delivery.id,
    claim: delivery.claim,
    state: delivered ? "delivered" : retryMs === undefined ? "failed" : "pending",
    duration_ms: Math.round(outcome.durationMs),
    response_status: outcome.responseStatus,
    response_body: outcome.responseBody,
    error: outcome.error,
    retry_ms: retryMs,
  }
}

/**
 * Ends the run of failures of those that took a delivery, and begins one for those that did not. Returns the
 * ids of `failed` that belong to no webhook: these were deleted meanwhile.
 */
export async function recordHealth(
  db: Database,
  { took, failed }: { took: readonly string[]; failed: readonly string[] },
): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`${prepared("record_health")}
    with health as (
      update webhooks set failing_since = case when id = any(${took}::text[]) then null else ${clock} end
      where id = any(${took}::text[]) and failing_since is not null
        or id = any(${failed}::text[]) and failing_since is null)
    select asked.id from unnest(${failed}::text[]) as asked (id)
    where not exists (select from webhooks where webhooks.id = asked.id)`.execute(db)
  return rows.map(({ id }) => id)
}

/** Those of `ids` that took nothing since `forMs` ago. */
export async function failingSince(db: Database, ids: readonly string[], forMs: number): Promise<string[]> {
  const rows = await db
    .selectFrom("webhooks")
    .select("id")
    .where("id", "in", ids)
    .where("enabled", "=", true)
    .where("failing_since", "<=", clockPlus(-forMs))
    .execute()
  return rows.map(({ id }) => id)
}
