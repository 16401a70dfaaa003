-- Of a VM that someone else started, null for ours: until the host's worker has found it as the request named it, then as it was found.
alter table instances add column attached jsonb;

-- Two instances of one VM would lay overlays on the same disks.
create unique index instances_attached on instances (host, (attached -> 'process')) where deleted_at is null;
