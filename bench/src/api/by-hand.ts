/** A snapshot, its operation and its event, as somebody would write it who needs nothing else. */
export const createSql = `
  with snapshot as (
    insert into snapshots (id, kind, status, name, tags, source_instance_id, source_instance_name, source_hypervisor,
      host, pool)
    values ($1, $2, 'queued', $3, $4, $5, $6, 'qemu', $7, $8)
    returning *
  ), operation as (
    insert into operations (id, kind, queue, instance_id, snapshot_id) values ($11, 'capture', $9, $5, $1)
  ), event as (
    insert into events (event_id, type, subject_kind, subject_id, data)
    values ($12, 'snapshot.created', 'snapshot', $1, $10)
  )
  select * from snapshot`

/** The newest with these tags: tags as JSON, and how many. */
export const listSql = `
  select * from snapshots
  where status in ('queued', 'capturing', 'ready') and tags @> $1::jsonb
  order by created_at desc, id desc limit $2`
