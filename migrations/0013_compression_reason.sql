-- Why a snapshot's memory can't be compressed, whatever was asked for.
alter table snapshots add column compression_reason text;
