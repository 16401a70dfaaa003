-- The oldest event that is kept, one more than `sequence` when none is: how a reader is told that it comes too late.
alter table event_head add column oldest bigint not null default 1;

-- Of an event that is to be removed.
create index deliveries_sequence on deliveries (sequence);
