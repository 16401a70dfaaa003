import type { EffectiveCompression } from "@stillframe/domain/compression"
import { StillframeError, type ErrorCode } from "@stillframe/domain/errors"
import { createId } from "@stillframe/domain/ids"
import type { Hypervisor } from "@stillframe/domain/instance"
import type { LostPool } from "@stillframe/domain/lost-host"
import {
  snapshotResource,
  snapshotStatusesBefore,
  type CaptureMode,
  type SnapshotKind,
  type SnapshotRecord,
  type SnapshotStatus,
} from "@stillframe/domain/snapshot"
import type { Tags } from "@stillframe/domain/text/tags"
import { sql, type RawBuilder, type Selectable, type Updateable } from "kysely"
import { prepared } from "../connection/prepared.ts"
import { appendSnapshotEvent } from "../events/events.ts"
import { captorUp, lostPool, poolContact } from "../hosts/contact.ts"
import { cancelSnapshotWork } from "../operations/operations.ts"
import type { Database, SnapshotsTable } from "../schema.ts"

/**
 * A create as a client that repeats requests by itself sent it: who, where and what as one hash, and which
 * try it is.
 */
export interface CreateTry {
  readonly hash: string
  readonly retry: number
}

export type SnapshotRow = Selectable<SnapshotsTable>

/** A snapshot as callers see it: with what is known of its storage pool and of the host that captures it. */
export type ShownSnapshot = SnapshotRow & { readonly lost_pool: LostPool | null; readonly host_up: boolean }

export interface NewSnapshot {
  readonly kind: SnapshotKind
  readonly name?: string | undefined
  readonly tags?: Tags | undefined
  /** Unless named, paused. */
  readonly capture?: CaptureMode | undefined
  readonly compression?: EffectiveCompression | undefined
  readonly queue: string
  readonly pool: string
  /** Set for a client that repeats requests by itself. */
  readonly createTry?: CreateTry | undefined
  /** A hash of who asks for it. */
  readonly caller?: string | undefined
  readonly instance: {
    readonly id: string
    readonly name: string
    readonly hypervisor: SnapshotRecord["source_hypervisor"]
    readonly host: string
  }
}

/**
 * The snapshot, its capture's operation and `snapshot.created` in one statement: a create costs one round
 * trip and one commit. A try of a create that may be repeated takes the lock that `lockTries` waits for.
 * Throws `conflict` when a living snapshot of the instance has the name.
 */
export async function createSnapshot(db: Database, snapshot: NewSnapshot): Promise<SnapshotRecord> {
  const { instance } = snapshot
  const row: SnapshotRecord = {
    ...unset,
    id: createId(),
    kind: snapshot.kind,
    status: "queued",
    name: snapshot.name ?? null,
    tags: snapshot.tags ?? {},
    source_instance_id: instance.id,
    source_instance_name: instance.name,
    source_hypervisor: instance.hypervisor,
    capture: snapshot.capture ?? "paused",
    compression: snapshot.compression ?? null,
  }
  // The time is the database's, so the resource in the event gets it there.
  const { created_at: _, ...data } = snapshotResource(row)
  const tried = snapshot.createTry ?? { hash: null, retry: null }
  try {
    const { rows } = await sql<Pick<SnapshotRecord, "created_at">>`${prepared("create_snapshot")}
      with snapshot as (
        insert into snapshots (id, kind, status, name, tags, source_instance_id, source_instance_name,
          source_hypervisor, host, pool, capture, compression, request_hash, request_retry)
        select ${row.id}, ${row.kind}, ${row.status}, ${row.name}, ${JSON.stringify(row.tags)}::jsonb, ${instance.id},
          ${instance.name}, ${instance.hypervisor}, ${instance.host}, ${snapshot.pool}, ${row.capture},
          ${row.compression === null ? null : JSON.stringify(row.compression)}::jsonb, ${tried.hash},
          ${tried.retry}::integer
        from (select pg_advisory_xact_lock_shared(hashtextextended(${tried.hash}, 0))) as held
        returning id, created_at
      ), operation as (
        insert into operations (id, kind, queue, instance_id, snapshot_id, caller)
        values (${createId()}, 'capture', ${snapshot.queue}, ${instance.id}, ${row.id}, ${snapshot.caller ?? null})
      ), event as (
        insert into events (event_id, type, subject_kind, subject_id, data)
        select ${createId()}, 'snapshot.created', 'snapshot', id, ${JSON.stringify(data)}::jsonb
          || jsonb_build_object('created_at', to_char(created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
        from snapshot
      )
      select created_at from snapshot`.execute(db)
    return { ...row, ...rows[0] }
  } catch (error) {
    throw isUniqueViolation(error, "snapshots_name")
      ? new StillframeError(
          "conflict",
          `instance already exists: snapshot name already exists: snapshot name "${row.name}" already exists for source instance ${instance.id}`,
        )
      : error
  }
}

const unset = {
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
} as const

/** True if `error` reports a violation of the unique index `index`. */
export function isUniqueViolation(error: unknown, index: string): boolean {
  const { code, constraint } = error as { code?: string; constraint?: string }
  return code === "23505" && constraint === index
}

/** Undefined also for one that is being deleted: outside, it is gone. */
export async function findSnapshot(db: Database, id: string): Promise<ShownSnapshot | undefined> {
  return db
    .selectFrom("snapshots")
    .leftJoin(poolContact, "contact.contact_name", "snapshots.pool")
    .selectAll("snapshots")
    .select([lostPool.as("lost_pool"), captorUp.as("host_up")])
    .where("id", "=", id)
    .where("status", "!=", "deleting")
    .executeTakeFirst()
}

/** Locks the row for the rest of the transaction; undefined when it is gone or being deleted. */
export async function lockSnapshot(tx: Database, id: string): Promise<SnapshotRow | undefined> {
  return tx
    .selectFrom("snapshots")
    .selectAll()
    .where("id", "=", id)
    .where("status", "!=", "deleting")
    .forUpdate()
    .executeTakeFirst()
}

/** Throws `conflict` for one in quarantine: its files are not what was captured. */
export function requireSound(snapshot: SnapshotRow): void {
  if (snapshot.corrupted_at === null) return
  throw new StillframeError(
    "conflict",
    `snapshot ${snapshot.id} is corrupted: ${snapshot.error_message}. Its files are kept; repair them and POST to /snapshots/${snapshot.id}/verify, or delete it`,
  )
}

export interface CapturedPayload {
  /** The token of the attempt whose directory is published. */
  readonly payload: string
  /** The source's when it was captured: it may have been restored to another one since the request. */
  readonly hypervisor: Hypervisor
  /** Null for kind Stopped, as its hash. */
  readonly memoryFile: string | null
  readonly memorySha256: string | null
  readonly manifestSha256: string
  readonly sizeBytes: number
  readonly storedBytes: number
  readonly sharedBytes: number
  readonly pauseMs: number
  readonly capturedAt: Date
  /** Why its memory can't be compressed. Absent where it can. */
  readonly incompressible?: string
  /** Why it can be neither restored nor forked. Absent where it can. */
  readonly unrestorable?: string
}

/**
 * Moves a snapshot on if its status allows it; the row afterwards, or undefined when it was not this caller's
 * to move.
 */
async function advance(
  tx: Database,
  id: string,
  to: SnapshotStatus,
  values: Omit<Updateable<SnapshotsTable>, "status" | "captured_at"> & { captured_at?: RawBuilder<Date> },
): Promise<SnapshotRow | undefined> {
  return tx
    .updateTable("snapshots")
    .set({ ...values, status: to })
    .where("id", "=", id)
    .where("status", "in", [...snapshotStatusesBefore(to)])
    .returningAll()
    .executeTakeFirst()
}

/** `pool`: where its files are going to lie, if that is not where the request was to have them. */
export function startCapture(tx: Database, id: string, pool?: string): Promise<SnapshotRow | undefined> {
  return advance(tx, id, "capturing", { progress: 0, ...(pool !== undefined && { pool }) })
}

export function handBackCapture(tx: Database, id: string): Promise<SnapshotRow | undefined> {
  return advance(tx, id, "queued", { progress: null })
}

/** Names the payload: from this commit on the snapshot exists. */
export function publishCapture(
  tx: Database,
  id: string,
  captured: CapturedPayload & { readonly compress: boolean },
): Promise<SnapshotRow | undefined> {
  return advance(tx, id, "ready", {
    payload: captured.payload,
    source_hypervisor: captured.hypervisor,
    memory_file: captured.memoryFile,
    memory_sha256: captured.memorySha256,
    manifest_sha256: captured.manifestSha256,
    size_bytes: captured.sizeBytes,
    stored_bytes: captured.storedBytes,
    shared_bytes: captured.sharedBytes,
    pause_ms: captured.pauseMs,
    // A manifest may come from a host whose clock was wrong.
    captured_at: sql<Date>`least(greatest(${captured.capturedAt}::timestamptz, created_at), clock())`,
    compression_state: captured.compress ? "compressing" : "none",
    compression_reason: captured.incompressible ?? null,
    restorable_reason: captured.unrestorable ?? null,
    progress: null,
  })
}

export function failSnapshot(
  tx: Database,
  id: string,
  { code, message }: { code: ErrorCode; message: string },
): Promise<SnapshotRow | undefined> {
  return advance(tx, id, "failed", {
    error_code: code,
    error_message: message,
    progress: null,
    size_bytes: 0,
  })
}

/** Fails what an instance that is gone can't give any more, with the event of each. */
export async function failCapturesOf(tx: Database, instanceId: string, message: string): Promise<void> {
  const waiting = await tx
    .selectFrom("snapshots")
    .select("id")
    .where("source_instance_id", "=", instanceId)
    .where("status", "in", ["queued", "capturing"])
    // Before their operations, as everywhere: see `inTransaction`.
    .forUpdate()
    .execute()
  for (const { id } of waiting) {
    await cancelSnapshotWork(tx, id)
    const failed = await failSnapshot(tx, id, { code: "cancelled", message })
    if (failed !== undefined) await appendSnapshotEvent(tx, "snapshot.failed", failed)
  }
}

/** Outside, the snapshot is gone; its row stays until its files are. */
export function startDelete(tx: Database, id: string): Promise<SnapshotRow | undefined> {
  return advance(tx, id, "deleting", {})
}

export async function removeSnapshotRow(db: Database, id: string): Promise<void> {
  await db.deleteFrom("snapshots").where("id", "=", id).where("status", "=", "deleting").execute()
}
