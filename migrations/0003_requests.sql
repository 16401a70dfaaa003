-- What a request with an Idempotency-Key has made, so that the same request again is answered with it; kept for 24 hours.
create table idempotency_keys (
  -- Hash of the token's subject, or of the token.
  caller text not null,
  method text not null,
  path text not null,
  key text not null,
  body_hash text not null,
  -- Ids of what was made, and how it was shown at first.
  made jsonb,
  body jsonb,
  created_at timestamptz not null default clock(),
  primary key (caller, method, path, key)
);
create index idempotency_keys_created on idempotency_keys (created_at);

-- Which request of a client that repeats itself made a snapshot, and whether its answer is known to have been sent.
alter table snapshots
  add column request_hash text,
  add column request_retry integer,
  add column answered_at timestamptz;
create index snapshots_request on snapshots (request_hash, created_at desc) where request_hash is not null;
