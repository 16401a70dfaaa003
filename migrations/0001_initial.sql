-- Every lease, deadline, retry and retention asks this clock, so that a test can move it.
create function clock() returns timestamptz language sql volatile as $$
  select clock_timestamp() + coalesce(nullif(current_setting('stillframe.clock_offset', true), '')::interval, interval '0')
$$;

-- One row: which installation this is. The same id lies in DATA_DIR and in the root of each storage pool.
create table cluster (
  singleton boolean primary key default true check (singleton),
  id text not null
);

create table hosts (
  name text primary key,
  host_id text not null,
  boot_id text not null,
  pool text not null,
  hypervisors jsonb not null default '{}',
  heartbeat_at timestamptz not null default clock()
);

-- Locked while space of the pool is promised to a capture, so that two cannot be promised the same.
create table pools (
  name text primary key
);

create table instances (
  id text primary key,
  name text not null,
  image text not null,
  hypervisor text not null,
  host text not null,
  state text not null,
  state_error text,
  generation integer not null default 1,
  pid integer,
  launch jsonb not null,
  vcpus integer not null,
  memory_mib integer not null,
  tags jsonb not null default '{}',
  snapshot_policy jsonb,
  source_snapshot_id text,
  exit_code integer,
  exit_message text,
  created_at timestamptz not null default clock(),
  started_at timestamptz,
  stopped_at timestamptz,
  deleted_at timestamptz
);
create unique index instances_name on instances (name) where deleted_at is null;
create index instances_host on instances (host) where deleted_at is null;

create table snapshots (
  id text primary key,
  kind text not null,
  status text not null,
  name text,
  tags jsonb not null default '{}',
  source_instance_id text not null,
  source_instance_name text not null,
  source_hypervisor text not null,
  host text not null,
  pool text not null,
  -- The fencing token whose directory holds the published files; anything else on disk is garbage.
  payload text,
  memory_file text,
  memory_sha256 text,
  -- Of the raw memory file: present, removing (no new reader may take it), removed.
  raw_state text not null default 'present' check (raw_state in ('present', 'removing', 'removed')),
  compression jsonb,
  compression_state text not null default 'none',
  compression_error text,
  size_bytes bigint not null default 0,
  uncompressed_size_bytes bigint,
  compressed_size_bytes bigint,
  stored_bytes bigint,
  progress real,
  error_code text,
  error_message text,
  pause_ms double precision,
  created_at timestamptz not null default clock(),
  captured_at timestamptz,
  verified_at timestamptz
);
create unique index snapshots_name on snapshots (source_instance_id, name)
  where name is not null and status in ('queued', 'capturing', 'ready');
create index snapshots_created on snapshots (created_at desc, id desc);
create index snapshots_instance on snapshots (source_instance_id, created_at desc);
create index snapshots_tags on snapshots using gin (tags jsonb_path_ops);
create index snapshots_raw_removing on snapshots (pool) where raw_state = 'removing';

-- While a row of this table lives, the raw memory file of its snapshot stays.
create table snapshot_readers (
  id text primary key,
  snapshot_id text not null references snapshots (id) on delete cascade,
  expires_at timestamptz not null
);
create index snapshot_readers_snapshot on snapshot_readers (snapshot_id);

create table operations (
  id text primary key,
  arrival bigint generated always as identity,
  kind text not null,
  queue text not null,
  instance_id text references instances (id),
  snapshot_id text references snapshots (id) on delete set null,
  params jsonb not null default '{}',
  state text not null default 'queued',
  attempt integer not null default 0,
  -- Counts the queueings: the job's id is <operation id>-<wake>, and a queue never sees an id twice.
  wake integer not null default 0,
  relayed_at timestamptz,
  not_before timestamptz not null default clock(),
  token text,
  lease_expires_at timestamptz,
  worker text,
  -- Of the pool, while the operation runs.
  reserved_bytes bigint not null default 0,
  error_code text,
  error_message text,
  created_at timestamptz not null default clock(),
  finished_at timestamptz
);
create unique index operations_one_per_vm on operations (instance_id)
  where state = 'running' and kind in ('launch', 'capture', 'fork', 'delete');
create index operations_queued on operations (not_before) where state = 'queued' and relayed_at is null;
create index operations_relayed on operations (relayed_at) where state = 'queued' and relayed_at is not null;
create index operations_running on operations (lease_expires_at) where state = 'running';
create index operations_instance on operations (instance_id, arrival) where state in ('queued', 'running');
create index operations_snapshot on operations (snapshot_id);

create table events (
  id bigint generated always as identity primary key,
  event_id text not null unique,
  sequence bigint unique,
  type text not null,
  subject_kind text not null,
  subject_id text not null,
  occurred_at timestamptz not null default clock(),
  data jsonb not null
);
create index events_unnumbered on events (id) where sequence is null;
create index events_subject on events (subject_id, sequence);

create table event_head (
  singleton boolean primary key default true check (singleton),
  sequence bigint not null
);
insert into event_head (sequence) values (0);

create table webhooks (
  id text primary key,
  url text not null,
  description text,
  event_types jsonb not null default '[]',
  instance_ids jsonb not null default '[]',
  tags jsonb not null default '{}',
  enabled boolean not null default true,
  -- AES-256-GCM under SECRETS_KEY.
  secret bytea not null,
  created_at timestamptz not null default clock()
);

create table deliveries (
  id bigint generated always as identity primary key,
  webhook_id text not null references webhooks (id) on delete cascade,
  sequence bigint not null references events (sequence),
  state text not null default 'pending' check (state in ('pending', 'delivered', 'failed')),
  attempt integer not null default 0,
  next_attempt_at timestamptz not null default clock(),
  response_status integer,
  error text,
  unique (webhook_id, sequence)
);
create index deliveries_due on deliveries (next_attempt_at) where state = 'pending';
