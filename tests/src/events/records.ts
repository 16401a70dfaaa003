import { createId } from "@stillframe/domain/ids"
import type { InstanceRecord } from "@stillframe/domain/instance"
import type { SnapshotRecord } from "@stillframe/domain/snapshot"

export function snapshotRecord(changes: Partial<SnapshotRecord> = {}): SnapshotRecord {
  return {
    id: createId(),
    kind: "Standby",
    status: "ready",
    name: null,
    tags: {},
    source_instance_id: createId(),
    source_instance_name: "web",
    source_hypervisor: "qemu",
    capture: "paused",
    compression: null,
    compression_state: "none",
    compression_error: null,
    compression_reason: null,
    restorable_reason: null,
    size_bytes: 0,
    uncompressed_size_bytes: null,
    compressed_size_bytes: null,
    stored_bytes: null,
    shared_bytes: null,
    progress: null,
    error_code: null,
    error_message: null,
    pause_ms: null,
    created_at: new Date(0),
    captured_at: null,
    verified_at: null,
    corrupted_at: null,
    ...changes,
  }
}

export function instanceRecord(changes: Partial<InstanceRecord> = {}): InstanceRecord {
  return {
    id: createId(),
    name: "web",
    image: "demo",
    hypervisor: "qemu",
    host: "a",
    attached: null,
    state: "Running",
    state_error: null,
    restorable_reason: null,
    importing: null,
    vcpus: 1,
    memory_mib: 64,
    tags: {},
    snapshot_policy: null,
    exit_code: null,
    exit_message: null,
    created_at: new Date(0),
    started_at: null,
    stopped_at: null,
    ...changes,
  }
}
