alter table webhooks
  -- Signs beside the new one for as long as its receivers need to change over.
  add column previous_secret bytea,
  add column previous_secret_until timestamptz,
  -- Since when there have been nothing but failures.
  add column failing_since timestamptz,
  -- Why it was disabled, where its owner did not do it.
  add column disabled_reason text check (disabled_reason in ('gone', 'failing'));

alter table deliveries
  -- An attempt is in flight: nobody else makes one until then.
  add column claimed_until timestamptz,
  add column ended_at timestamptz;
drop index deliveries_due;
create index deliveries_due on deliveries (webhook_id, next_attempt_at) where state = 'pending';
-- In flight, to be counted.
create index deliveries_claimed on deliveries (webhook_id, claimed_until) where state = 'pending' and claimed_until is not null;
create index deliveries_webhook on deliveries (webhook_id, id desc);

-- What each attempt came to.
create table delivery_attempts (
  id bigint generated always as identity primary key,
  delivery_id bigint not null references deliveries (id) on delete cascade,
  attempted_at timestamptz not null,
  duration_ms integer not null,
  response_status integer,
  -- Its first KiB, as text.
  response_body text,
  error text
);
create index delivery_attempts_delivery on delivery_attempts (delivery_id, id);
