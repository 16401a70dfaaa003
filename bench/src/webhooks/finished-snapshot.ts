import { createId } from "@stillframe/domain/ids"
import type { SnapshotRecord } from "@stillframe/domain/snapshot"

/** As a snapshot is that is done, with the members that most have. */
export function finishedSnapshot(): SnapshotRecord {
  const now = new Date()
  return {
    id: createId(),
    kind: "Standby",
    status: "ready",
    name: "nightly",
    tags: { env: "prod", team: "storage" },
    source_instance_id: createId(),
    source_instance_name: "web",
    source_hypervisor: "qemu",
    capture: "paused",
    compression: { enabled: true, algorithm: "zstd", level: 1 },
    compression_state: "compressed",
    compression_error: null,
    compression_reason: null,
    restorable_reason: null,
    size_bytes: 88_000_000,
    uncompressed_size_bytes: 536_870_912,
    compressed_size_bytes: 87_000_000,
    stored_bytes: 88_000_000,
    shared_bytes: 0,
    progress: null,
    error_code: null,
    error_message: null,
    pause_ms: 211.5,
    created_at: now,
    captured_at: now,
    verified_at: now,
    corrupted_at: null,
  }
}
