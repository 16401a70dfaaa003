-- The memory of an instance in Standby: the token of its directory on the host, as `payload` is for a snapshot.
alter table instances add column standby_payload text;

-- Every operation that ends, starts or pauses a VM excludes the others.
drop index operations_one_per_vm;
create unique index operations_one_per_vm on operations (instance_id)
  where state = 'running' and kind in ('launch', 'capture', 'stop', 'start', 'standby', 'restore', 'fork', 'delete');

-- Whose owner may still be at work, the cancelled included.
create index operations_held on operations (instance_id) where token is not null;
