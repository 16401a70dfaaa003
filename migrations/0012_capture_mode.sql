-- What the request asked for: whether a VM that runs may go on while its memory is saved. All before this one stood still.
alter table snapshots add column capture text not null default 'paused' check (capture in ('paused', 'live'));
