import type { LostContact } from "@stillframe/domain/instance"
import type { LostPool } from "@stillframe/domain/lost-host"
import { captureQueue, compressQueue } from "@stillframe/domain/queues"
import { sql, type RawBuilder } from "kysely"
import { hostFreshMs } from "./hosts.ts"

const freshSince = sql`clock() - ${sql.lit(hostFreshMs)} * interval '1 millisecond'`
const heardAt = sql`to_char(contact.heard_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`

interface Contact {
  readonly contact_name: string
  readonly pool: string
  readonly heard_at: Date
  readonly up: boolean
}

/** To be joined to instances by their host: computed once for all rows of a list. */
export const hostContact = sql<Contact>`(
  select name as contact_name, pool, heartbeat_at as heard_at, heartbeat_at > ${freshSince} as up from hosts)`.as<"contact">(
  "contact",
)

/** To be joined to snapshots by their pool. */
export const poolContact = sql<Contact>`(
  select pool as contact_name, pool, max(heartbeat_at) as heard_at, max(heartbeat_at) > ${freshSince} as up
  from hosts group by pool)`.as<"contact">("contact")

/** To be selected from instances that `hostContact` is joined to. */
export const lostContact: RawBuilder<LostContact | null> = sql`case when contact.up then null else
  jsonb_build_object('since', ${heardAt}, 'deleting', exists (
    select from operations where operations.instance_id = instances.id and operations.kind = 'delete'
      and operations.state in ('queued', 'running'))) end`

/** To be selected from snapshots that `poolContact` is joined to. */
export const lostPool: RawBuilder<LostPool | null> = sql`case when contact.up then null else
  jsonb_build_object('name', snapshots.pool, 'since', ${heardAt}) end`

/** True for a snapshot whose host is up. */
export const captorUp: RawBuilder<boolean> = sql`exists (
  select from hosts where hosts.name = snapshots.host and hosts.heartbeat_at > ${freshSince})`

/** The state that an instance is shown in, as in `shownState`. */
export const shownState: RawBuilder<string> = sql`case when contact.up then instances.state else 'Unknown' end`

/** True for an operation whose queue is served by a host or compression-worker that is up. */
export const attended: RawBuilder<boolean> = sql`(
  exists (select from hosts
    where ${captureQueue("")} || hosts.name = operations.queue and hosts.heartbeat_at > ${freshSince})
  or exists (select from compression_workers as worker
    where ${compressQueue("")} || worker.pool = operations.queue and worker.heartbeat_at > ${freshSince}))`
