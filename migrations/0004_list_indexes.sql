-- A histogram of a hundred rows can't tell a pair of tags that 50 snapshots have from one that a thousand have, and the
-- wrong guess walks the whole list by age for its newest few.
alter table snapshots alter column tags set statistics 1000;
analyze snapshots (tags);

-- In the order of the list to its last column, so that a page can start in the middle of it.
drop index snapshots_instance;
create index snapshots_instance on snapshots (source_instance_id, created_at desc, id desc);

-- Of an instance itself and of its snapshots, as `GET /events?instance_id=` asks.
create index events_instance on events (coalesce(data ->> 'source_instance_id', subject_id), sequence);
