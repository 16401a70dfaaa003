-- One row: what the dispatchers found when they last looked at the queue's server, for `/ready`.
create table queue_check (
  singleton boolean primary key default true check (singleton),
  problems jsonb not null,
  checked_at timestamptz not null default clock()
);
