-- Why snapshots of the VM, or the snapshot, can be neither restored nor forked; null where they can.
alter table instances add column restorable_reason text;
alter table snapshots add column restorable_reason text;

update instances set restorable_reason = 'the VM runs with ' || (attached ->> 'option') ||
  ', which Stillframe cannot recreate, so its snapshots cannot be restored or forked. Restart the VM without it and attach it again.'
  where attached ? 'option';
update snapshots set restorable_reason = instances.restorable_reason
  from instances where instances.id = snapshots.source_instance_id and snapshots.status = 'ready';
