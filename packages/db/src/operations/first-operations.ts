import { vmOperationKinds } from "@stillframe/domain/operation"
import { sql, type RawBuilder } from "kysely"

/**
 * Literals, because Postgres must see that the indexes `operations_of_vm` and `operations_queued` serve the
 * query.
 */
const vmKinds = sql.join(vmOperationKinds.map((kind) => sql.lit(kind)))

/** The condition of `operations_of_vm`: an open operation that excludes all others of its instance. */
const openOfVm = sql`instance_id is not null and state in ('queued', 'running') and kind in (${vmKinds})`

/**
 * True for an operation, a row of `operations as mine`, that an earlier one of its instance must end before.
 */
export const waitsForEarlier: RawBuilder<boolean> = sql`(
  mine.kind in (${vmKinds}) and exists (
    select from operations as earlier
    where earlier.state in ('queued', 'running') and earlier.arrival < mine.arrival
      and earlier.instance_id = mine.instance_id and earlier.kind in (${vmKinds})))`

const columns = sql`id, instance_id, state, relayed_at, not_before`

/**
 * Begins a statement: `unrelayed (id, not_before)` are the queued operations that are in no queue and wait
 * for no other. It steps from instance to instance in the index, so that a backlog of one instance costs as
 * much as a single operation. The rows alone decide: an operation whose predecessor ended is in it, however
 * the process that ended that one went on.
 */
export const withUnrelayed = sql`
  with recursive first as (
    (select ${columns} from operations where ${openOfVm} order by instance_id, arrival limit 1)
    union all
    select next.* from first cross join lateral (
      select ${columns} from operations where ${openOfVm} and instance_id > first.instance_id
      order by instance_id, arrival limit 1) as next
  ), unrelayed as (
    select id, not_before from first where state = 'queued' and relayed_at is null
    union all
    select id, not_before from operations
    where state = 'queued' and relayed_at is null and (instance_id is null or kind in ('compress', 'verify'))
  )`
