import type { EventEnvelope } from "@stillframe/domain/events"
import type { InstanceResource } from "@stillframe/domain/instance"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import type { WebhookResource } from "@stillframe/domain/webhook"

// The same VM, snapshot and webhook in all examples of answers.

export const exampleInstance: InstanceResource = {
  id: "qilviffnqzck2jrim1x6s2b1",
  name: "first",
  image: "heartbeat",
  hypervisor: "qemu",
  host: "web-1",
  state: "Running",
  vcpus: 1,
  size: "64 MB",
  tags: { team: "backend" },
  has_snapshot: false,
  created_at: "2026-01-31T12:00:00.000Z",
  started_at: "2026-01-31T12:00:01.000Z",
  expires_at: null,
}

export const exampleSnapshot: SnapshotResource = {
  id: "q7z1w7l2af4l8y7q1h7g2m3s",
  kind: "Standby",
  name: "before-upgrade",
  tags: { team: "backend" },
  source_instance_id: exampleInstance.id,
  source_instance_name: exampleInstance.name,
  source_hypervisor: "qemu",
  created_at: "2026-01-31T12:05:00.000Z",
  size_bytes: 1_204_224,
  compression: { enabled: true, algorithm: "zstd", level: 1 },
  compression_state: "compressed",
  compressed_size_bytes: 1_204_000,
  uncompressed_size_bytes: 67_108_864,
  status: "ready",
  captured_at: "2026-01-31T12:05:00.120Z",
  pause_ms: 41.5,
  stored_bytes: 1_208_320,
}

export const exampleWebhook: WebhookResource = {
  id: "b2f0c8d6k4m1n3p5r7t9v2x4",
  url: "https://example.com/hook",
  description: "my receiver",
  event_types: ["snapshot.*"],
  instance_ids: [],
  enabled: true,
  previous_secret_until: null,
  created_at: "2026-01-31T12:10:00.000Z",
}

export const exampleEvent: EventEnvelope = {
  id: "c3e5g7i9k2m4o6q8s1u3w5y7",
  sequence: 7,
  type: "snapshot.completed",
  occurred_at: "2026-01-31T12:05:02.000Z",
  subject: { kind: "snapshot", id: exampleSnapshot.id },
  data: exampleSnapshot,
}
