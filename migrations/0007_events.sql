-- The oldest event that is kept, one more than `sequence` when none is: how a reader is told that it comes too late.
alter table event_head add column oldest bigint not null default 1;
