-- Readers of events may not be readers of webhooks, whose paths and queries often hold a secret: only the origin stays.
update events set data = jsonb_set(data, '{url}', to_jsonb(substring(data ->> 'url' from '^[a-z]+://[^/?#]+')))
  where subject_kind = 'webhook' and data ->> 'url' ~ '^[a-z]+://[^/?#]+';

-- Pulls back every stored time that lies further ahead than what wrote it can have meant, which says that the database's clock was
-- ahead when it was written. Such a lease or delay would hold up a VM until that time comes. Each limit is in milliseconds. A lease
-- becomes a fresh one, since its owner may live. Returns how many rows it changed.
create function pull_back_times(
  lease_ms bigint, delay_ms bigint, reader_ms bigint, retry_ms bigint, claim_ms bigint, grace_ms bigint, claimed_max integer
) returns integer language plpgsql volatile as $$
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
$$;

-- Tokens without an end that the API took, by their SHA-256, so that its start can say how many clients would be refused.
create table endless_tokens (
  token_hash text primary key,
  seen_at timestamptz not null default clock()
);
