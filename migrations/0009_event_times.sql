-- Which numbers a time has. No BRIN: what is removed makes room for what is new, so every range of pages soon spans all times.
create index events_occurred on events (occurred_at) where sequence is not null;
