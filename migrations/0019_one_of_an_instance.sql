-- Only the first open VM operation of an instance is relayed. Both indexes leave out those that wait behind another, so
-- that looking for work costs the same however long a backlog is.
create index operations_of_vm on operations (instance_id, arrival)
  where instance_id is not null and state in ('queued', 'running')
    and kind in ('launch', 'capture', 'stop', 'start', 'standby', 'restore', 'fork', 'delete');
drop index operations_queued;
create index operations_queued on operations (not_before)
  where state = 'queued' and relayed_at is null and (instance_id is null or kind in ('compress', 'verify'));

-- A hash of who asked for a capture. Open captures are counted by host and by caller.
alter table operations add column caller text;
create index operations_captures on operations (queue, caller)
  where state in ('queued', 'running') and kind = 'capture';
