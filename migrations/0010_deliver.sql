-- What the dispatcher does for every event and every delivery, each in one round trip and one commit. As statements of a
-- transaction they cost ten round trips per event, and most of the time that a receiver waited for it.

-- Whether an event is one for a webhook, by the event's own data. A test is for its webhook alone.
create function webhook_matches(webhook webhooks, event events) returns boolean language sql stable as $$
  select case
    when event.type = 'webhook.test' then webhook.id = event.subject_id
    else (webhook.event_types = '[]' or webhook.event_types ? event.type
        or webhook.event_types ? (event.subject_kind || '.*'))
      and (webhook.instance_ids = '[]'
        or webhook.instance_ids ? coalesce(event.data ->> 'source_instance_id', event.subject_id))
      and coalesce(event.data -> 'tags', '{}') @> webhook.tags
    end
$$;

-- Numbers the oldest events that wait for it and makes their deliveries; returns how many events. The lock on the head's row
-- is the fence. A statement that reads events must come after it: its snapshot must be younger than the lock, or two
-- numberers leave gaps (measured: 25,300 in 39,070). In a volatile function each statement has a snapshot of its own.
create function number_events(events_max integer, deliveries_max integer) returns integer language plpgsql volatile as $$
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
$$;

-- One turn of a dispatcher: numbers events, then takes up to `room` deliveries that are due: of each webhook some of the
-- oldest, of all webhooks in turn. `events` are those that they tell of, each once.
-- What is in flight already is among a webhook's oldest, so their number is the limit per webhook, and nothing need be
-- counted. Who holds the lock on a webhook is the only one that claims for it; what somebody else holds is left to them.
-- `floors`: for some webhooks, when the oldest that was pending at an earlier turn was due. To start there spares the index
-- entries of all that has been delivered since the last vacuum. It misses what was written before that turn and committed
-- after it.
create function number_and_claim(
  events_max integer, deliveries_max integer, room integer, claim_ms integer, oldest_max integer,
  oldest_failing_max integer, floors jsonb,
  out numbered integer, out deliveries json, out events json, out next_floors json
) language plpgsql volatile as $$
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
$$;

-- Writes attempts down and moves their deliveries on. A success always counts. A failure only while its claim lasts: a delivery
-- that somebody else has claimed since, or that was asked for again, is theirs to judge.
create function record_attempts(attempts jsonb, claim_ms integer) returns void language plpgsql volatile as $$
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
$$;

-- They go by indexes, and so do those that they call, whatever the planner thinks of tables that have grown since it last looked, and are planned
-- once per connection: planning would take longer than they do.
do $$
declare
  name text;
  method text;
begin
  foreach name in array array['number_and_claim', 'record_attempts'] loop
    execute format('alter function %I set plan_cache_mode = force_generic_plan', name);
    foreach method in array array['seqscan', 'bitmapscan', 'hashjoin', 'mergejoin'] loop
      execute format('alter function %I set enable_%s = off', name, method);
    end loop;
  end loop;
end
$$;

-- A claim changes no indexed column, and finds room beside the row, so no index is written for it.
drop index deliveries_claimed;
alter table deliveries set (fillfactor = 60);
-- The newest deliveries of a webhook are those of its newest events.
drop index deliveries_webhook;

-- By its delivery and then by age: one index for both.
alter table delivery_attempts drop constraint delivery_attempts_pkey, add primary key (delivery_id, id);
drop index delivery_attempts_delivery;
