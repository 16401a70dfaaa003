import type { EventEnvelope, EventFilter, EventType } from "@stillframe/domain/events"
import { createId } from "@stillframe/domain/ids"
import { instanceResource, type InstanceRecord } from "@stillframe/domain/instance"
import { snapshotResource, type SnapshotRecord } from "@stillframe/domain/snapshot"
import { webhookResource, withOriginOnly, type WebhookRecord } from "@stillframe/domain/webhook"
import { sql } from "kysely"
import type { Database } from "../schema.ts"

/** A reader gets at most this many events at once. */
export const eventsPerBatchMax = 1_000

/** In one transaction, at most; fewer events where they make more deliveries. */
export const numberedAtOnce = { events: 1_000, deliveries: 5_000 } as const

/**
 * Appends to the log, in the transaction of the change it tells of and as its last statement. It shows up
 * once numbered. Returns its id.
 */
export function appendSnapshotEvent(
  tx: Database,
  type: EventType,
  snapshot: SnapshotRecord,
): Promise<string> {
  return append(tx, type, "snapshot", snapshot.id, snapshotResource(snapshot))
}

export function appendInstanceEvent(
  tx: Database,
  type: EventType,
  instance: InstanceRecord,
): Promise<string> {
  return append(tx, type, "instance", instance.id, instanceResource(instance))
}

/** Without the path of its URL: readers of events and other webhooks' receivers may not read webhooks. */
export function appendWebhookEvent(tx: Database, type: EventType, webhook: WebhookRecord): Promise<string> {
  return append(tx, type, "webhook", webhook.id, withOriginOnly(webhookResource(webhook)))
}

async function append(
  tx: Database,
  type: EventType,
  subject_kind: EventEnvelope["subject"]["kind"],
  subject_id: string,
  data: object,
): Promise<string> {
  const event_id = createId()
  await tx
    .insertInto("events")
    .values({ event_id, type, subject_kind, subject_id, data: JSON.stringify(data) })
    .execute()
  return event_id
}

/** Numbers the oldest events that wait for it and makes their deliveries; returns how many it numbered. */
export async function numberEvents(db: Database): Promise<number> {
  const { rows } = await sql<{ numbered: number }>`
    select number_events(${numberedAtOnce.events}::int, ${numberedAtOnce.deliveries}::int) as numbered`.execute(
    db,
  )
  return rows[0]?.numbered ?? 0
}

export interface EventQuery extends EventFilter {
  /** Only events with a larger sequence. */
  readonly after: number
  readonly limit: number
}

/**
 * The feed, oldest first: numbered events only, so a reader that saw n never later sees a smaller one appear.
 * The filter means the same as `matchesEvent`.
 */
export async function listEvents(db: Database, query: EventQuery): Promise<EventEnvelope[]> {
  const rows = await db
    .selectFrom("events")
    .select(eventColumns)
    .where("sequence", ">", query.after)
    // One text however many there are, so that it is prepared once; and none is no mistake.
    .$if(query.types !== undefined, (select) => select.where(sql<boolean>`type = any(${query.types})`))
    .$if(query.subjectId !== undefined, (select) => select.where("subject_id", "=", query.subjectId ?? ""))
    .$if(query.instanceId !== undefined, (select) =>
      select.where(sql`coalesce(data ->> 'source_instance_id', subject_id)`, "=", query.instanceId),
    )
    .orderBy("sequence")
    .limit(query.limit)
    .execute()
  return rows.map(toEnvelope)
}

const eventColumns = [
  "event_id",
  "sequence",
  "type",
  "subject_kind",
  "subject_id",
  "occurred_at",
  "data",
] as const

export interface EventRow {
  event_id: string
  sequence: number | null
  type: EventType
  subject_kind: EventEnvelope["subject"]["kind"]
  subject_id: string
  occurred_at: Date
  data: Record<string, unknown>
}

export function toEnvelope(row: EventRow): EventEnvelope {
  return {
    id: row.event_id,
    sequence: row.sequence ?? 0,
    type: row.type,
    occurred_at: row.occurred_at.toISOString(),
    subject: { kind: row.subject_kind, id: row.subject_id },
    data: row.data as unknown as EventEnvelope["data"],
  }
}
