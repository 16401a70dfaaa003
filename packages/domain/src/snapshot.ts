import type { CompressionConfig, EffectiveCompression } from "./compression.ts"
import type { ErrorCode } from "./errors.ts"
import type { Hypervisor, TargetState } from "./instance.ts"
import { noHostOf, type LostPool } from "./lost-host.ts"
import { restorableMembers } from "./restorable.ts"
import { shownReason } from "./text/reason.ts"
import type { Tags } from "./text/tags.ts"

export const snapshotKinds = ["Standby", "Stopped"] as const
export type SnapshotKind = (typeof snapshotKinds)[number]

export const snapshotStatuses = ["queued", "capturing", "ready", "failed", "deleting"] as const
export type SnapshotStatus = (typeof snapshotStatuses)[number]

/** The whole life of a snapshot: a status may only move to those on its right. */
const nextSnapshotStatuses: Readonly<Record<SnapshotStatus, readonly SnapshotStatus[]>> = {
  queued: ["capturing", "failed", "deleting"],
  // Back to queued: a worker that stops hands its capture back. Capturing again: the next worker, after one
  // whose lease ran out.
  capturing: ["queued", "capturing", "ready", "failed", "deleting"],
  ready: ["deleting"],
  failed: ["deleting"],
  deleting: [],
}

/** The statuses that may move to `to`, for the `WHERE` of an update. */
export function snapshotStatusesBefore(to: SnapshotStatus): SnapshotStatus[] {
  return snapshotStatuses.filter((from) => nextSnapshotStatuses[from].includes(to))
}

export const compressionStates = ["none", "compressing", "compressed", "error"] as const
export type CompressionState = (typeof compressionStates)[number]

/** `paused`: the VM stops until its memory is saved. `live`: it stops for some milliseconds only. */
export const captureModes = ["paused", "live"] as const
export type CaptureMode = (typeof captureModes)[number]

/** The states that a restore or fork of each kind may end in; the first is the default. */
export const snapshotTargets: Readonly<Record<SnapshotKind, readonly [TargetState, ...TargetState[]]>> = {
  Standby: ["Running", "Standby", "Stopped"],
  Stopped: ["Stopped", "Running"],
}

/** A snapshot's row, as far as callers see it. */
export interface SnapshotRecord {
  readonly id: string
  readonly kind: SnapshotKind
  readonly status: SnapshotStatus
  readonly name: string | null
  readonly tags: Tags
  readonly source_instance_id: string
  readonly source_instance_name: string
  readonly source_hypervisor: Hypervisor
  readonly capture: CaptureMode
  readonly compression: EffectiveCompression | null
  readonly compression_state: CompressionState
  readonly compression_error: string | null
  /** Why its memory can't be compressed, whatever was asked for. */
  readonly compression_reason: string | null
  /** Why it can be neither restored nor forked. */
  readonly restorable_reason: string | null
  readonly size_bytes: number
  readonly uncompressed_size_bytes: number | null
  readonly compressed_size_bytes: number | null
  readonly stored_bytes: number | null
  readonly shared_bytes: number | null
  readonly progress: number | null
  readonly error_code: ErrorCode | null
  readonly error_message: string | null
  readonly pause_ms: number | null
  readonly created_at: Date
  readonly captured_at: Date | null
  readonly verified_at: Date | null
  readonly corrupted_at: Date | null
  /** Set when no host of its storage pool is heard of. Absent where that was not asked, as in events. */
  readonly lost_pool?: LostPool | null
}

/**
 * The resource as every answer and every event shows it: optional members are left out, never null. Times are
 * RFC 3339, sizes bytes.
 */
export interface SnapshotResource {
  readonly id: string
  readonly kind: SnapshotKind
  readonly name?: string
  readonly tags?: Tags
  readonly source_instance_id: string
  readonly source_instance_name: string
  readonly source_hypervisor: Hypervisor
  readonly created_at: string
  readonly size_bytes: number
  /** As asked for; of Standby snapshots only. */
  readonly capture?: CaptureMode
  readonly compression?: CompressionConfig
  readonly compression_state: CompressionState
  readonly compression_error?: string
  readonly compression_reason?: string
  /** Left out where it can be restored and forked. */
  readonly restorable?: false
  readonly restorable_reason?: string
  readonly compressed_size_bytes?: number
  readonly uncompressed_size_bytes?: number
  readonly status: SnapshotStatus
  readonly progress?: number
  readonly error?: { readonly code: ErrorCode; readonly message: string }
  readonly captured_at?: string
  readonly pause_ms?: number
  readonly stored_bytes?: number
  readonly shared_bytes?: number
  readonly verified_at?: string
  readonly corrupted_at?: string
  /** Why its files cannot be reached at present. */
  readonly storage_error?: string
}

export function snapshotResource(record: SnapshotRecord): SnapshotResource {
  const compressed = record.compression_state === "compressed"
  return {
    id: record.id,
    kind: record.kind,
    ...(record.name !== null && { name: record.name }),
    ...(Object.keys(record.tags).length > 0 && { tags: record.tags }),
    source_instance_id: record.source_instance_id,
    source_instance_name: record.source_instance_name,
    source_hypervisor: record.source_hypervisor,
    created_at: record.created_at.toISOString(),
    size_bytes: record.size_bytes,
    ...(record.kind === "Standby" && { capture: record.capture }),
    ...(record.compression !== null && { compression: record.compression }),
    compression_state: record.compression_state,
    ...((compressed || record.compression_state === "error") &&
      optional("compression_error", record.compression_error && shownReason(record.compression_error))),
    ...optional("compression_reason", record.compression_reason),
    ...restorableMembers(record.restorable_reason),
    ...(compressed && optional("compressed_size_bytes", record.compressed_size_bytes)),
    ...(compressed && optional("uncompressed_size_bytes", record.uncompressed_size_bytes)),
    status: record.status,
    ...optional("progress", record.progress),
    ...(record.error_code !== null && {
      error: { code: record.error_code, message: shownReason(record.error_message ?? "") },
    }),
    ...optional("captured_at", record.captured_at?.toISOString()),
    ...optional("pause_ms", record.pause_ms),
    ...optional("stored_bytes", record.stored_bytes),
    ...optional("shared_bytes", record.shared_bytes),
    ...optional("verified_at", record.verified_at?.toISOString()),
    ...optional("corrupted_at", record.corrupted_at?.toISOString()),
    ...(record.lost_pool && {
      storage_error: `${noHostOf(record.lost_pool)}; start a capture-worker of a host that has it`,
    }),
  }
}

function optional<Key extends string, Value>(
  key: Key,
  value: Value | null | undefined,
): { [K in Key]?: Value } {
  return value === null || value === undefined ? {} : ({ [key]: value } as { [K in Key]?: Value })
}
