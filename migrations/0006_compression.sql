-- Memory files that the row no longer names lie in the payload; they go when nobody reads them.
alter table snapshots add column superseded boolean not null default false;
update snapshots set superseded = true where raw_state = 'removing';
drop index snapshots_raw_removing;
alter table snapshots drop column raw_state;
create index snapshots_superseded on snapshots (pool) where superseded;

alter table snapshots
  -- When a verification found files that are not what was captured; null as long as none has.
  add column corrupted_at timestamptz,
  -- By file name, of callers' disks: too large to hash at capture, so the first verification does.
  add column base_sha256 jsonb not null default '{}';

-- In the order in which the scrub verifies them again.
create index snapshots_unverified on snapshots (pool, coalesce(verified_at, captured_at))
  where status = 'ready' and corrupted_at is null;

create table compression_workers (
  name text not null,
  pool text not null,
  -- Algorithm to the binding that this worker has for it.
  codecs jsonb not null,
  heartbeat_at timestamptz not null default clock(),
  primary key (pool, name)
);
