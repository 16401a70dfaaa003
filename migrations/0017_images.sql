-- Blocks of a snapshot's files that had other names too when it was last measured.
alter table snapshots add column shared_bytes bigint;

-- How far the import of a launch's files is.
alter table instances add column importing jsonb;
