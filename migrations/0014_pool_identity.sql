-- Which directory is the pool: its pool.json carries the same id. Null until the first worker has found or made it.
alter table pools add column id text;

-- Each heartbeat brings what the worker can't do at present, as [{code, message}].
alter table hosts add column problems jsonb not null default '[]';
alter table compression_workers add column problems jsonb not null default '[]';
