import { sql, type RawBuilder } from "kysely"
import type { Database } from "../schema.ts"

/** The open captures of an instance, of a host's queue, or of a caller. */
export type CapturesOf =
  | { readonly instanceId: string }
  | { readonly queue: string }
  | { readonly caller: string }

/** Captures that wait or run. Counts up to `max` only, so that a long backlog costs no more. */
export async function countOpenCaptures(db: Database, of: CapturesOf, max: number): Promise<number> {
  const { rows } = await sql<{ open: number }>`
    select count(*)::int as open from (
      select from operations where state in ('queued', 'running') and kind = 'capture' and ${condition(of)}
      limit ${max}) as counted`.execute(db)
  return rows[0]?.open ?? 0
}

function condition(of: CapturesOf): RawBuilder<unknown> {
  if ("instanceId" in of) return sql`instance_id = ${of.instanceId}`
  return "queue" in of ? sql`queue = ${of.queue}` : sql`caller = ${of.caller}`
}
