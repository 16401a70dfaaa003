-- What each of a host's hypervisors can do, where there was only its version. The next heartbeat fills it in.
alter table hosts drop column hypervisors, add column capabilities jsonb not null default '{}';
