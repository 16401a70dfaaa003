import type { HostCapabilities } from "@stillframe/domain/capabilities"
import type { Algorithm, EffectiveCompression } from "@stillframe/domain/compression"
import type { DeliveryState } from "@stillframe/domain/delivery"
import type { ErrorCode } from "@stillframe/domain/errors"
import type { EventEnvelope, EventType } from "@stillframe/domain/events"
import type { Hypervisor, ImportState, InstanceState, SnapshotPolicy } from "@stillframe/domain/instance"
import type { OperationKind, OperationState } from "@stillframe/domain/operation"
import type { Problem } from "@stillframe/domain/problem"
import type { CaptureMode, CompressionState, SnapshotKind, SnapshotStatus } from "@stillframe/domain/snapshot"
import type { Tags } from "@stillframe/domain/text/tags"
import type { DisabledReason } from "@stillframe/domain/webhook"
import type { ColumnType, Generated, JSONColumnType, Kysely, Transaction } from "kysely"

/** A pool of connections or a transaction on one of them: every store works on either. */
export type Database = Kysely<Schema> | Transaction<Schema>

export interface Schema {
  cluster: { singleton: Generated<boolean>; id: string }
  hosts: HostsTable
  pools: { name: string; id: string | null }
  compression_workers: CompressionWorkersTable
  instances: InstancesTable
  snapshots: SnapshotsTable
  snapshot_readers: { id: string; snapshot_id: string; expires_at: Date }
  operations: OperationsTable
  queue_check: QueueCheckTable
  endless_tokens: { token_hash: string; seen_at: Generated<Date> }
  events: EventsTable
  event_head: { singleton: Generated<boolean>; sequence: number; oldest: Generated<number> }
  idempotency_keys: IdempotencyKeysTable
  webhooks: WebhooksTable
  deliveries: DeliveriesTable
  delivery_attempts: DeliveryAttemptsTable
}

// pg gives and takes parsed JSON for objects; arrays must be given as text, or pg makes Postgres arrays of
// them.
type Json<T extends object> = JSONColumnType<T>
type Defaulted<T> = ColumnType<T, T | undefined, T>

export interface HostsTable {
  name: string
  host_id: string
  boot_id: string
  pool: string
  capabilities: ColumnType<HostCapabilities, string, string>
  problems: ColumnType<Problem[], string | undefined, string>
  heartbeat_at: Generated<Date>
}

export interface CompressionWorkersTable {
  name: string
  pool: string
  codecs: ColumnType<Record<Algorithm, string>, string, string>
  problems: ColumnType<Problem[], string | undefined, string>
  heartbeat_at: Generated<Date>
}

export interface QueueCheckTable {
  singleton: Generated<boolean>
  problems: ColumnType<Problem[], string, string>
  checked_at: Generated<Date>
}

export interface InstancesTable {
  id: string
  name: string
  image: string
  hypervisor: Hypervisor
  host: string
  state: InstanceState
  state_error: string | null
  restorable_reason: string | null
  importing: ColumnType<ImportState | null, string | null | undefined, string | null>
  generation: Defaulted<number>
  pid: number | null
  launch: ColumnType<Record<string, unknown>, string, string>
  attached: ColumnType<Record<string, unknown> | null, string | null, string | null>
  vcpus: number
  memory_mib: number
  tags: Json<Tags>
  snapshot_policy: ColumnType<SnapshotPolicy | null, string | null, string | null>
  source_snapshot_id: string | null
  standby_payload: string | null
  exit_code: number | null
  exit_message: string | null
  created_at: Generated<Date>
  started_at: Date | null
  stopped_at: Date | null
  deleted_at: Date | null
  forgotten_at: Date | null
}

export interface SnapshotsTable {
  id: string
  kind: SnapshotKind
  status: SnapshotStatus
  name: string | null
  tags: Json<Tags>
  source_instance_id: string
  source_instance_name: string
  source_hypervisor: Hypervisor
  host: string
  pool: string
  payload: string | null
  memory_file: string | null
  memory_sha256: string | null
  manifest_sha256: string | null
  superseded: Defaulted<boolean>
  capture: Defaulted<CaptureMode>
  compression: ColumnType<EffectiveCompression | null, string | null, string | null>
  compression_state: Defaulted<CompressionState>
  compression_error: string | null
  compression_reason: string | null
  restorable_reason: string | null
  size_bytes: Defaulted<number>
  uncompressed_size_bytes: number | null
  compressed_size_bytes: number | null
  stored_bytes: number | null
  shared_bytes: number | null
  progress: number | null
  error_code: ErrorCode | null
  error_message: string | null
  pause_ms: number | null
  created_at: Generated<Date>
  captured_at: Date | null
  verified_at: Date | null
  corrupted_at: Date | null
  base_sha256: ColumnType<Record<string, string>, string | undefined, string>
  request_hash: string | null
  request_retry: number | null
  answered_at: Date | null
}

export interface OperationsTable {
  id: string
  arrival: Generated<number>
  kind: OperationKind
  queue: string
  instance_id: string | null
  snapshot_id: string | null
  params: ColumnType<Record<string, unknown>, string | undefined, string>
  state: Defaulted<OperationState>
  attempt: Defaulted<number>
  wake: Defaulted<number>
  relayed_at: Date | null
  not_before: Generated<Date>
  token: string | null
  lease_expires_at: Date | null
  worker: string | null
  reserved_bytes: Defaulted<number>
  caller: string | null
  error_code: ErrorCode | null
  /** The reason of a failure. On an operation that is done: a warning to its caller. */
  error_message: string | null
  created_at: Generated<Date>
  finished_at: Date | null
}

export interface EventsTable {
  id: Generated<number>
  event_id: string
  sequence: number | null
  type: EventType
  subject_kind: EventEnvelope["subject"]["kind"]
  subject_id: string
  occurred_at: Generated<Date>
  data: ColumnType<Record<string, unknown>, string, string>
}

export interface IdempotencyKeysTable {
  caller: string
  method: string
  path: string
  key: string
  body_hash: string
  made: ColumnType<Record<string, string> | null, string | null | undefined, string | null>
  body: ColumnType<object | null, string | null | undefined, string | null>
  created_at: Generated<Date>
}

export interface WebhooksTable {
  id: string
  url: string
  description: string | null
  event_types: Json<string[]>
  instance_ids: Json<string[]>
  tags: Json<Tags>
  enabled: Defaulted<boolean>
  secret: Buffer
  previous_secret: Buffer | null
  previous_secret_until: Date | null
  failing_since: Date | null
  disabled_reason: DisabledReason | null
  created_at: Generated<Date>
}

export interface DeliveriesTable {
  id: Generated<number>
  webhook_id: string
  sequence: number
  state: Defaulted<DeliveryState>
  attempt: Defaulted<number>
  next_attempt_at: Generated<Date>
  claimed_until: Date | null
  ended_at: Date | null
  response_status: number | null
  error: string | null
}

export interface DeliveryAttemptsTable {
  id: Generated<number>
  delivery_id: number
  attempted_at: Date
  duration_ms: number
  response_status: number | null
  response_body: string | null
  error: string | null
}
