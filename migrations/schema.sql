-- The schema that the migrations add up to, generated for readers. Nothing applies this file.
-- After a new migration: npx vitest run tests/src/db/schema.test.ts --update

create table cluster (
  singleton boolean default true not null,
  id text not null,
  constraint cluster_pkey PRIMARY KEY (singleton),
  constraint cluster_singleton_check CHECK (singleton)
);

create table compression_workers (
  name text not null,
  pool text not null,
  codecs jsonb not null,
  heartbeat_at timestamp with time zone default clock() not null,
  problems jsonb default '[]'::jsonb not null,
  constraint compression_workers_pkey PRIMARY KEY (pool, name)
);

create table deliveries (
  id bigint generated always as identity not null,
  webhook_id text not null,
  sequence bigint not null,
  state text default 'pending'::text not null,
  attempt integer default 0 not null,
  next_attempt_at timestamp with time zone default clock() not null,
  response_status integer,
  error text,
  claimed_until timestamp with time zone,
  ended_at timestamp with time zone,
  constraint deliveries_pkey PRIMARY KEY (id),
  constraint deliveries_sequence_fkey FOREIGN KEY (sequence) REFERENCES events(sequence),
  constraint deliveries_state_check CHECK ((state = ANY (ARRAY['pending'::text, 'delivered'::text, 'failed'::text]))),
  constraint deliveries_webhook_id_fkey FOREIGN KEY (webhook_id) REFERENCES webhooks(id) ON DELETE CASCADE,
  constraint deliveries_webhook_id_sequence_key UNIQUE (webhook_id, sequence)
);
CREATE INDEX deliveries_due ON deliveries USING btree (webhook_id, next_attempt_at) WHERE (state = 'pending'::text);
CREATE INDEX deliveries_sequence ON deliveries USING btree (sequence);

create table delivery_attempts (
  id bigint generated always as identity not null,
  delivery_id bigint not null,
  attempted_at timestamp with time zone not null,
  duration_ms integer not null,
  response_status integer,
  response_body text,
  error text,
  constraint delivery_attempts_pkey PRIMARY KEY (delivery_id, id),
  constraint delivery_attempts_delivery_id_fkey FOREIGN KEY (delivery_id) REFERENCES deliveries(id) ON DELETE CASCADE
);

create table endless_tokens (
  token_hash text not null,
  seen_at timestamp with time zone default clock() not null,
  constraint endless_tokens_pkey PRIMARY KEY (token_hash)
);

create table event_head (
  singleton boolean default true not null,
  sequence bigint not null,
  oldest bigint default 1 not null,
  constraint event_head_pkey PRIMARY KEY (singleton),
  constraint event_head_singleton_check CHECK (singleton)
);

create table events (
  id bigint generated always as identity not null,
  event_id text not null,
  sequence bigint,
  type text not null,
  subject_kind text not null,
  subject_id text not null,
  occurred_at timestamp with time zone default clock() not null,
  data jsonb not null,
  constraint events_pkey PRIMARY KEY (id),
  constraint events_event_id_key UNIQUE (event_id),
  constraint events_sequence_key UNIQUE (sequence)
);
CREATE INDEX events_instance ON events USING btree (COALESCE((data ->> 'source_instance_id'::text), subject_id), sequence);
CREATE INDEX events_occurred ON events USING btree (occurred_at) WHERE (sequence IS NOT NULL);
CREATE INDEX events_subject ON events USING btree (subject_id, sequence);
CREATE INDEX events_unnumbered ON events USING btree (id) WHERE (sequence IS NULL);

create table hosts (
  name text not null,
  host_id text not null,
  boot_id text not null,
  pool text not null,
  heartbeat_at timestamp with time zone default clock() not null,
  capabilities jsonb default '{}'::jsonb not null,
  problems jsonb default '[]'::jsonb not null,
  constraint hosts_pkey PRIMARY KEY (name)
);

create table idempotency_keys (
  caller text not null,
  method text not null,
  path text not null,
  key text not null,
  body_hash text not null,
  made jsonb,
  body jsonb,
  created_at timestamp with time zone default clock() not null,
  constraint idempotency_keys_pkey PRIMARY KEY (caller, method, path, key)
);
CREATE INDEX idempotency_keys_created ON idempotency_keys USING btree (created_at);

create table instances (
  id text not null,
  name text not null,
  image text not null,
  hypervisor text not null,
  host text not null,
  state text not null,
  state_error text,
  generation integer default 1 not null,
  pid integer,
  launch jsonb not null,
  vcpus integer not null,
  memory_mib integer not null,
  tags jsonb default '{}'::jsonb not null,
  snapshot_policy jsonb,
  source_snapshot_id text,
  exit_code integer,
  exit_message text,
  created_at timestamp with time zone default clock() not null,
  started_at timestamp with time zone,
  stopped_at timestamp with time zone,
  deleted_at timestamp with time zone,
  standby_payload text,
  attached jsonb,
  forgotten_at timestamp with time zone,
  restorable_reason text,
  importing jsonb,
  constraint instances_pkey PRIMARY KEY (id)
);
CREATE UNIQUE INDEX instances_attached ON instances USING btree (host, ((attached -> 'process'::text))) WHERE (deleted_at IS NULL);
CREATE INDEX instances_host ON instances USING btree (host) WHERE (deleted_at IS NULL);
CREATE UNIQUE INDEX instances_name ON instances USING btree (name) WHERE (deleted_at IS NULL);

create table operations (
  id text not null,
  arrival bigint generated always as identity not null,
  kind text not null,
  queue text not null,
  instance_id text,
  snapshot_id text,
  params jsonb default '{}'::jsonb not null,
  state text default 'queued'::text not null,
  attempt integer default 0 not null,
  wake integer default 0 not null,
  relayed_at timestamp with time zone,
  not_before timestamp with time zone default clock() not null,
  token text,
  lease_expires_at timestamp with time zone,
  worker text,
  reserved_bytes bigint default 0 not null,
  error_code text,
  error_message text,
  created_at timestamp with time zone default clock() not null,
  finished_at timestamp with time zone,
  caller text,
  constraint operations_pkey PRIMARY KEY (id),
  constraint operations_instance_id_fkey FOREIGN KEY (instance_id) REFERENCES instances(id),
  constraint operations_snapshot_id_fkey FOREIGN KEY (snapshot_id) REFERENCES snapshots(id) ON DELETE SET NULL
);
CREATE INDEX operations_captures ON operations USING btree (queue, caller) WHERE ((state = ANY (ARRAY['queued'::text, 'running'::text])) AND (kind = 'capture'::text));
CREATE INDEX operations_held ON operations USING btree (instance_id) WHERE (token IS NOT NULL);
CREATE INDEX operations_instance ON operations USING btree (instance_id, arrival) WHERE (state = ANY (ARRAY['queued'::text, 'running'::text]));
CREATE INDEX operations_of_vm ON operations USING btree (instance_id, arrival) WHERE ((instance_id IS NOT NULL) AND (state = ANY (ARRAY['queued'::text, 'running'::text])) AND (kind = ANY (ARRAY['launch'::text, 'capture'::text, 'stop'::text, 'start'::text, 'standby'::text, 'restore'::text, 'fork'::text, 'delete'::text])));
CREATE UNIQUE INDEX operations_one_per_vm ON operations USING btree (instance_id) WHERE ((state = 'running'::text) AND (kind = ANY (ARRAY['launch'::text, 'capture'::text, 'stop'::text, 'start'::text, 'standby'::text, 'restore'::text, 'fork'::text, 'delete'::text])));
CREATE INDEX operations_queued ON operations USING btree (not_before) WHERE ((state = 'queued'::text) AND (relayed_at IS NULL) AND ((instance_id IS NULL) OR (kind = ANY (ARRAY['compress'::text, 'verify'::text]))));
CREATE INDEX operations_relayed ON operations USING btree (relayed_at) WHERE ((state = 'queued'::text) AND (relayed_at IS NOT NULL));
CREATE INDEX operations_running ON operations USING btree (lease_expires_at) WHERE (state = 'running'::text);
CREATE INDEX operations_snapshot ON operations USING btree (snapshot_id);

create table pools (
  name text not null,
  id text,
  constraint pools_pkey PRIMARY KEY (name)
);

create table queue_check (
  singleton boolean default true not null,
  problems jsonb not null,
  checked_at timestamp with time zone default clock() not null,
  constraint queue_check_pkey PRIMARY KEY (singleton),
  constraint queue_check_singleton_check CHECK (singleton)
);

create table snapshot_readers (
  id text not null,
  snapshot_id text not null,
  expires_at timestamp with time zone not null,
  constraint snapshot_readers_pkey PRIMARY KEY (id),
  constraint snapshot_readers_snapshot_id_fkey FOREIGN KEY (snapshot_id) REFERENCES snapshots(id) ON DELETE CASCADE
);
CREATE INDEX snapshot_readers_snapshot ON snapshot_readers USING btree (snapshot_id);

create table snapshots (
  id text not null,
  kind text not null,
  status text not null,
  name text,
  tags jsonb default '{}'::jsonb not null,
  source_instance_id text not null,
  source_instance_name text not null,
  source_hypervisor text not null,
  host text not null,
  pool text not null,
  payload text,
  memory_file text,
  memory_sha256 text,
  compression jsonb,
  compression_state text default 'none'::text not null,
  compression_error text,
  size_bytes bigint default 0 not null,
  uncompressed_size_bytes bigint,
  compressed_size_bytes bigint,
  stored_bytes bigint,
  progress real,
  error_code text,
  error_message text,
  pause_ms double precision,
  created_at timestamp with time zone default clock() not null,
  captured_at timestamp with time zone,
  verified_at timestamp with time zone,
  request_hash text,
  request_retry integer,
  answered_at timestamp with time zone,
  superseded boolean default false not null,
  corrupted_at timestamp with time zone,
  base_sha256 jsonb default '{}'::jsonb not null,
  capture text default 'paused'::text not null,
  compression_reason text,
  restorable_reason text,
  shared_bytes bigint,
  manifest_sha256 text,
  constraint snapshots_pkey PRIMARY KEY (id),
  constraint snapshots_capture_check CHECK ((capture = ANY (ARRAY['paused'::text, 'live'::text])))
);
CREATE INDEX snapshots_created ON snapshots USING btree (created_at DESC, id DESC);
CREATE INDEX snapshots_instance ON snapshots USING btree (source_instance_id, created_at DESC, id DESC);
CREATE UNIQUE INDEX snapshots_name ON snapshots USING btree (source_instance_id, name) WHERE ((name IS NOT NULL) AND (status = ANY (ARRAY['queued'::text, 'capturing'::text, 'ready'::text])));
CREATE INDEX snapshots_request ON snapshots USING btree (request_hash, created_at DESC) WHERE (request_hash IS NOT NULL);
CREATE INDEX snapshots_superseded ON snapshots USING btree (pool) WHERE superseded;
CREATE INDEX snapshots_tags ON snapshots USING gin (tags jsonb_path_ops);
CREATE INDEX snapshots_unverified ON snapshots USING btree (pool, COALESCE(verified_at, captured_at)) WHERE ((status = 'ready'::text) AND (corrupted_at IS NULL));

create table webhooks (
  id text not null,
  url text not null,
  description text,
  event_types jsonb default '[]'::jsonb not null,
  instance_ids jsonb default '[]'::jsonb not null,
  tags jsonb default '{}'::jsonb not null,
  enabled boolean default true not null,
  secret bytea not null,
  created_at timestamp with time zone default clock() not null,
  previous_secret bytea,
  previous_secret_until timestamp with time zone,
  failing_since timestamp with time zone,
  disabled_reason text,
  constraint webhooks_pkey PRIMARY KEY (id),
  constraint webhooks_disabled_reason_check CHECK ((disabled_reason = ANY (ARRAY['gone'::text, 'failing'::text])))
);

CREATE OR REPLACE FUNCTION clock()
 RETURNS timestamp with time zone
 LANGUAGE sql
AS $function$
  select clock_timestamp() + coalesce(nullif(current_setting('stillframe.clock_offset', true), '')::interval, interval '0')
$function$
;

CREATE OR REPLACE FUNCTION number_and_claim(events_max integer, deliveries_max integer, room integer, claim_ms integer, oldest_max integer, oldest_failing_max integer, floors jsonb, OUT numbered integer, OUT deliveries json, OUT events json, OUT next_floors json)
 RETURNS record
 LANGUAGE plpgsql
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_seqscan TO 'off'
 SET enable_bitmapscan TO 'off'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
AS $function$
declare
  now_once timestamptz;
  with_due text[];
begin
  numbered := number_events(events_max, deliveries_max);
  -- After it: what it made is due at once.
  now_once := clock();
  if room = 0 then
    return;
  end if;
  select array_agg(id) into with_due from (
    select webhooks.id from webhooks cross join lateral (
      select from deliveries
      where webhook_id = webhooks.id and state = 'pending' and next_attempt_at <= now_once
        and next_attempt_at >= coalesce((floors ->> webhooks.id)::timestamptz, '-infinity')
        and (claimed_until is null or claimed_until <= now_once)
      order by next_attempt_at limit 1) as due
    where enabled
    -- Where there are more than there is room for, all come up in the long run.
    order by random() limit room
    for no key update of webhooks skip locked) as locked;
  if with_due is null then
    return;
  end if;
  -- Apart from the locking, whose snapshot is older than the locks.
  with oldest as materialized (
    select due.*, row_number() over (partition by webhook_id order by next_attempt_at) as turn
    from webhooks cross join lateral (
      select id, webhook_id, claimed_until, next_attempt_at from deliveries
      where webhook_id = webhooks.id and state = 'pending' and next_attempt_at <= now_once
        and next_attempt_at >= coalesce((floors ->> webhooks.id)::timestamptz, '-infinity')
      order by next_attempt_at
      limit case when failing_since is null then oldest_max else oldest_failing_max end) as due
    where webhooks.id = any(with_due)
  ), claimed as (
    update deliveries set claimed_until = now_once + claim_ms * interval '1 millisecond'
    from (
      select id from oldest where claimed_until is null or claimed_until <= now_once
      order by turn, next_attempt_at limit room) as chosen
    -- Pending still. By its state, the planner might look for it among all that is.
    where deliveries.id = chosen.id and ended_at is null
    returning deliveries.*
  )
  select
    (select json_agg(json_build_object(
        'id', claimed.id, 'webhookId', webhook_id, 'sequence', sequence, 'attempt', attempt + 1,
        'claim', claimed_until::text, 'url', url, 'failing', failing_since is not null,
        'secret', encode(secret, 'base64'),
        'previousSecret', case when previous_secret_until > now_once then encode(previous_secret, 'base64') end))
      from claimed join webhooks on webhooks.id = webhook_id),
    (select json_agg(json_build_object(
        'event_id', event_id, 'sequence', sequence, 'type', type, 'subject_kind', subject_kind,
        'subject_id', subject_id, 'occurred_at', occurred_at, 'data', data))
      from events where sequence in (select sequence from claimed)),
    (select json_object_agg(webhook_id, due_at::text)
      from (select webhook_id, min(next_attempt_at) as due_at from oldest group by webhook_id) as floor)
    into deliveries, events, next_floors;
end
$function$
;

CREATE OR REPLACE FUNCTION number_events(events_max integer, deliveries_max integer)
 RETURNS integer
 LANGUAGE plpgsql
AS $function$
declare
  head bigint;
  numbered integer;
begin
  if not exists (select from events where sequence is null) then
    return 0;
  end if;
  select sequence into head from event_head for update;
  with batch as (
    select id, head + row_number() over (order by id) as sequence
    from (
      select id from events where sequence is null order by id
      limit least(events_max, greatest(1, deliveries_max / greatest(1, (select count(*) from webhooks where enabled))))
    ) as oldest
  )
  update events set sequence = batch.sequence from batch where events.id = batch.id;
  get diagnostics numbered = row_count;
  insert into deliveries (webhook_id, sequence)
    select webhooks.id, events.sequence from events, webhooks
    where events.sequence > head and webhooks.enabled and webhook_matches(webhooks, events);
  update event_head set sequence = head + numbered;
  return numbered;
end
$function$
;

CREATE OR REPLACE FUNCTION pull_back_times(lease_ms bigint, delay_ms bigint, reader_ms bigint, retry_ms bigint, claim_ms bigint, grace_ms bigint, claimed_max integer)
 RETURNS integer
 LANGUAGE plpgsql
AS $function$
declare
  now_once timestamptz := clock();
  -- A row that is written during this call is a moment ahead of its start.
  slack constant interval := interval '1 minute';
  ms constant interval := interval '1 millisecond';
  latest timestamptz;
  changed integer;
  total integer := 0;
begin
  latest := now_once + lease_ms * ms;
  update operations set
    lease_expires_at = latest,
    not_before = least(not_before, now_once),
    relayed_at = case when relayed_at > now_once + slack then now_once else relayed_at end
    where id in (
    select id from operations where token is not null and lease_expires_at > latest + slack for update skip locked);
  get diagnostics changed = row_count;
  total := total + changed;

  -- Apart, for the index of each.
  update operations set not_before = now_once where id in (
    select id from operations
    where state = 'queued' and relayed_at is null and not_before > now_once + delay_ms * ms + slack for update skip locked);
  get diagnostics changed = row_count;
  total := total + changed;
  update operations set not_before = least(not_before, now_once), relayed_at = now_once where id in (
    select id from operations
    where state = 'queued' and relayed_at is not null and relayed_at > now_once + slack for update skip locked);
  get diagnostics changed = row_count;
  total := total + changed;

  latest := now_once + reader_ms * ms;
  update snapshot_readers set expires_at = latest where expires_at > latest + slack;
  get diagnostics changed = row_count;
  total := total + changed;

  update hosts set heartbeat_at = now_once where heartbeat_at > now_once + slack;
  get diagnostics changed = row_count;
  total := total + changed;
  update compression_workers set heartbeat_at = now_once where heartbeat_at > now_once + slack;
  get diagnostics changed = row_count;
  total := total + changed;
  update queue_check set checked_at = now_once where checked_at > now_once + slack;
  get diagnostics changed = row_count;
  total := total + changed;
  update idempotency_keys set created_at = now_once where created_at > now_once + slack;
  get diagnostics changed = row_count;
  total := total + changed;

  update webhooks set
    failing_since = case when failing_since > now_once + slack then now_once else failing_since end,
    previous_secret_until = case
      when previous_secret_until > now_once + grace_ms * ms + slack then now_once + grace_ms * ms else previous_secret_until end
    where failing_since > now_once + slack or previous_secret_until > now_once + grace_ms * ms + slack;
  get diagnostics changed = row_count;
  total := total + changed;

  -- A first attempt is due at once. Claims are among the oldest of a webhook.
  update deliveries set
    next_attempt_at = case
      when next_attempt_at > now_once + case attempt when 0 then 0 else retry_ms end * ms + slack then now_once
      else next_attempt_at end,
    claimed_until = case when claimed_until > now_once + claim_ms * ms + slack then null else claimed_until end
    where id in (
      select ahead.id from webhooks cross join lateral (
        select id from deliveries
        where webhook_id = webhooks.id and state = 'pending' and next_attempt_at > now_once + slack
          and next_attempt_at > now_once + case attempt when 0 then 0 else retry_ms end * ms + slack
        union
        select id from (
          select id, claimed_until from deliveries
          where webhook_id = webhooks.id and state = 'pending' order by next_attempt_at limit claimed_max) as oldest
        where claimed_until > now_once + claim_ms * ms + slack) as ahead)
    and state = 'pending';
  get diagnostics changed = row_count;
  return total + changed;
end
$function$
;

CREATE OR REPLACE FUNCTION record_attempts(attempts jsonb, claim_ms integer)
 RETURNS void
 LANGUAGE plpgsql
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_seqscan TO 'off'
 SET enable_bitmapscan TO 'off'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
AS $function$
begin
  with ended as (
    select * from jsonb_to_recordset(attempts) as ended (
      id bigint, claim timestamptz, state text, duration_ms integer, response_status integer, response_body text,
      error text, retry_ms float8)
  ), held as (
    select ended.* from ended join deliveries using (id) order by id for update of deliveries
  ), moved as (
    update deliveries set
      state = held.state,
      attempt = attempt + 1,
      claimed_until = null,
      next_attempt_at = case held.state
        when 'pending' then clock() + held.retry_ms * interval '1 millisecond' else next_attempt_at end,
      ended_at = case held.state when 'pending' then null else clock() end,
      response_status = held.response_status,
      error = held.error
    from held
    where deliveries.id = held.id and (
      deliveries.state = 'pending' and claimed_until = held.claim
      or held.state = 'delivered' and deliveries.state <> 'delivered')
  )
  insert into delivery_attempts (delivery_id, attempted_at, duration_ms, response_status, response_body, error)
  select id, claim - claim_ms * interval '1 millisecond', duration_ms, response_status, response_body, error
  from held;
end
$function$
;

CREATE OR REPLACE FUNCTION webhook_matches(webhook webhooks, event events)
 RETURNS boolean
 LANGUAGE sql
 STABLE
AS $function$
  select case
    when event.type = 'webhook.test' then webhook.id = event.subject_id
    else (webhook.event_types = '[]' or webhook.event_types ? event.type
        or webhook.event_types ? (event.subject_kind || '.*'))
      and (webhook.instance_ids = '[]'
        or webhook.instance_ids ? coalesce(event.data ->> 'source_instance_id', event.subject_id))
      and coalesce(event.data -> 'tags', '{}') @> webhook.tags
    end
$function$
;
