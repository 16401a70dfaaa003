import { sql } from "kysely"
import { clock } from "../client.ts"
import type { Database } from "../schema.ts"
import { waitsForEarlier, withUnrelayed } from "./first-operations.ts"

export const relayBatchMax = 500

/** An operation on its way into a queue; the job's id is `<id>-<wake>`. */
export interface RelayedOperation {
  readonly id: string
  readonly queue: string
  readonly wake: number
}

/**
 * Takes operations that are due and in no queue, of each instance only the first, those that are due longest
 * in front, so that instances take turns. They are marked as relayed before they are: a process that dies in
 * between, or finds the queue down, leaves rows that `markLost` finds again, and no transaction waits for the
 * queue.
 */
export async function takeUnrelayed(db: Database): Promise<RelayedOperation[]> {
  const { rows } = await sql<RelayedOperation>`
    ${withUnrelayed}, taken as (
      update operations set relayed_at = ${clock}
      where id in (
        select id from operations
        where id in (select id from unrelayed where not_before <= ${clock} order by not_before limit ${relayBatchMax})
          and state = 'queued' and relayed_at is null
        for update skip locked)
      returning id, queue, wake, not_before)
    select id, queue, wake from taken order by not_before`.execute(db)
  return rows
}

/**
 * Queued operations that were relayed more than `olderThanMs` ago: their jobs may have been lost. A worker
 * drops the job of one that waits for an earlier one of its instance, so that one is not lost; the end of the
 * earlier one relays it.
 */
export async function relayedLongAgo(db: Database, olderThanMs: number): Promise<RelayedOperation[]> {
  const { rows } = await sql<RelayedOperation>`
    select id, queue, wake from operations as mine
    where state = 'queued' and not_before <= ${clock}
      and relayed_at < ${clock} - ${olderThanMs} * interval '1 millisecond' and not ${waitsForEarlier}
    order by relayed_at limit ${relayBatchMax}`.execute(db)
  return rows
}

/**
 * Gives lost operations a new wake, so that the queue takes them again. Those that have moved on are left
 * alone.
 */
export async function markLost(db: Database, lost: readonly RelayedOperation[]): Promise<void> {
  if (lost.length === 0) return
  await sql`
    update operations set wake = operations.wake + 1, relayed_at = null
    from unnest(${lost.map(({ id }) => id)}::text[], ${lost.map(({ wake }) => wake)}::int[]) as lost (id, wake)
    where operations.id = lost.id and operations.wake = lost.wake and state = 'queued'`.execute(db)
}

/**
 * Queues again whatever runs on a lease that is over; its next owner decides what the last one left. Returns
 * how many.
 */
export async function requeueExpired(db: Database): Promise<number> {
  const { rows } = await sql`
    update operations set state = 'queued', token = null, wake = wake + 1, relayed_at = null, not_before = ${clock}
    where id in (
      select id from operations where state = 'running' and lease_expires_at < ${clock}
      limit ${relayBatchMax} for update skip locked)
    returning id`.execute(db)
  return rows.length
}

/**
 * Milliseconds until the next operation that is in no queue and waits for no other is due, or undefined
 * without one.
 */
export async function nextUnrelayedInMs(db: Database): Promise<number | undefined> {
  const { rows } = await sql<{ ms: number | null }>`
    ${withUnrelayed}
    select ceil(extract(epoch from min(not_before) - ${clock}) * 1000)::int as ms from unrelayed`.execute(db)
  return rows[0]?.ms ?? undefined
}
