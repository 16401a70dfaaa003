-- Set when the instance's host was forgotten: its files and perhaps its VM may still be on that machine.
alter table instances add column forgotten_at timestamptz;
