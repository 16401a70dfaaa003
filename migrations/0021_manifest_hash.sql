-- The SHA-256 of a payload's manifest.json as it was published; null for snapshots of earlier versions.
alter table snapshots add column manifest_sha256 text;
