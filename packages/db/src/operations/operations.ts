import type { ErrorCode } from "@stillframe/domain/errors"
import { createId } from "@stillframe/domain/ids"
import {
  leaseMs,
  operationKinds,
  stateOperationKinds,
  type OperationKind,
} from "@stillframe/domain/operation"
import { sql } from "kysely"
import { clock, clockPlus } from "../client.ts"
import { attended } from "../hosts/contact.ts"
import type { Database } from "../schema.ts"
import { waitsForEarlier } from "./first-operations.ts"

export interface NewOperation {
  readonly kind: OperationKind
  /** The queue of the machine or the pool that must do it: `capture.<host>` or `compress.<pool>`. */
  readonly queue: string
  readonly instanceId?: string | undefined
  readonly snapshotId?: string | undefined
  readonly params?: Record<string, unknown>
}

/** Inserts a piece of work; the publisher puts it into its queue after the commit. Returns its id. */
export async function createOperation(tx: Database, operation: NewOperation): Promise<string> {
  const id = createId()
  await tx
    .insertInto("operations")
    .values({
      id,
      kind: operation.kind,
      queue: operation.queue,
      instance_id: operation.instanceId ?? null,
      snapshot_id: operation.snapshotId ?? null,
      params: JSON.stringify(operation.params ?? {}),
    })
    .execute()
  return id
}

export interface ClaimedOperation {
  readonly id: string
  readonly kind: OperationKind
  readonly instanceId: string | null
  readonly snapshotId: string | null
  readonly params: Record<string, unknown>
  /** Counts from 1; this one included. */
  readonly attempt: number
  /** Fences every write of this attempt. */
  readonly token: string
}

/**
 * Takes a queued operation, or one whose owner's lease has run out, with a new token. Undefined: not for us
 * now (done, cancelled, held by another, or an earlier one of the same instance comes first); the end of that
 * one relays this.
 */
export async function claimOperation(
  db: Database,
  { id, worker, queue }: { id: string; worker: string; queue: string },
): Promise<ClaimedOperation | undefined> {
  const { rows } = await sql<ClaimedOperation>`
    update operations as mine
    set state = 'running', attempt = attempt + 1, token = ${createId()}, worker = ${worker},
        lease_expires_at = ${clockPlus(leaseMs)}
    where id = ${id} and queue = ${queue}
      and (state = 'queued' and not_before <= ${clock} or state = 'running' and lease_expires_at < ${clock})
      and not ${waitsForEarlier}
    returning id, kind, instance_id as "instanceId", snapshot_id as "snapshotId", params, attempt, token`.execute(
    db,
  )
  return rows[0]
}

/** Moves the lease on. False: the operation was cancelled or taken over, and its owner must stop. */
export async function renewLease(
  db: Database,
  { id, token }: { id: string; token: string },
): Promise<boolean> {
  const { numUpdatedRows } = await db
    .updateTable("operations")
    .set({ lease_expires_at: clockPlus(leaseMs) })
    .where("id", "=", id)
    .where("token", "=", token)
    .where("state", "=", "running")
    .executeTakeFirst()
  return numUpdatedRows === 1n
}

export type OperationEnd =
  | { readonly state: "done"; readonly warning?: string | undefined }
  | { readonly state: "failed"; readonly code: ErrorCode; readonly message: string }

/**
 * Ends an operation, fenced by its token, and wakes the next one of the same instance. False: the token is no
 * longer current, and whatever else the caller's transaction did must be rolled back.
 */
export async function finishOperation(
  tx: Database,
  { id, token, end }: { id: string; token: string; end: OperationEnd },
): Promise<boolean> {
  const row = await tx
    .updateTable("operations")
    .set({
      state: end.state,
      token: null,
      finished_at: clock,
      ...(end.state === "failed"
        ? { error_code: end.code, error_message: end.message }
        : { error_message: end.warning ?? null }),
    })
    .where("id", "=", id)
    .where("token", "=", token)
    .where("state", "=", "running")
    .returning("instance_id")
    .executeTakeFirst()
  if (row === undefined) return false
  if (row.instance_id !== null) await wakeNext(tx, row.instance_id)
  return true
}

/**
 * Notes what was found out of work that goes on, for answers that do not wait for its end. `warning`: empty
 * where all is well.
 */
export async function noteWarning(
  db: Database,
  { id, token }: { id: string; token: string },
  warning: string,
): Promise<void> {
  await db
    .updateTable("operations")
    .set({ error_message: warning })
    .where("id", "=", id)
    .where("token", "=", token)
    .where("state", "=", "running")
    .execute()
}

/**
 * Hands an operation back for another try after `delayMs`. `counted: false` takes this attempt off the count.
 */
export async function requeueOperation(
  tx: Database,
  { id, token, delayMs, counted }: { id: string; token: string; delayMs: number; counted: boolean },
): Promise<boolean> {
  const { numUpdatedRows } = await tx
    .updateTable("operations")
    .set((row) => ({
      state: "queued",
      token: null,
      not_before: clockPlus(delayMs),
      relayed_at: null,
      wake: row("wake", "+", 1),
      ...(!counted && { attempt: row("attempt", "-", 1) }),
    }))
    .where("id", "=", id)
    .where("token", "=", token)
    .where("state", "=", "running")
    .executeTakeFirst()
  return numUpdatedRows === 1n
}

/**
 * Says that a cancelled operation's owner has let go of everything it touched; a deletion may have waited for
 * that. False: the operation was not cancelled.
 */
export async function releaseCancelled(
  db: Database,
  { id, token }: { id: string; token: string },
): Promise<boolean> {
  const released = await db
    .updateTable("operations")
    .set({ token: null })
    .where("id", "=", id)
    .where("token", "=", token)
    .where("state", "=", "cancelled")
    .returning("snapshot_id")
    .executeTakeFirst()
  if (typeof released?.snapshot_id === "string") await hurryDeletion(db, released.snapshot_id)
  return released !== undefined
}

/** Has a snapshot's deletion look again now at whether its files are free. */
export async function hurryDeletion(db: Database, snapshotId: string): Promise<void> {
  await db
    .updateTable("operations")
    .set({ not_before: clock })
    .where("snapshot_id", "=", snapshotId)
    .where("kind", "=", "delete")
    .where("state", "=", "queued")
    .execute()
}

/** Has all that waits for its next try in a queue be tried now: what it waited for is back. */
export async function hurryQueue(db: Database, queue: string): Promise<void> {
  await db
    .updateTable("operations")
    .set({ not_before: clock })
    .where("queue", "=", queue)
    .where("state", "=", "queued")
    .where("not_before", ">", clock)
    .execute()
}

/**
 * Cancels what makes, compresses or verifies a snapshot; the owner of a running one notices at its next
 * renewal. Forks go on: they hold what they read.
 */
export async function cancelSnapshotWork(tx: Database, snapshotId: string): Promise<void> {
  await cancel(tx, "snapshot_id", snapshotId, ["capture", "compress", "verify"])
}

/** Cancels all that an instance waits for or is in. */
export async function cancelInstanceWork(tx: Database, instanceId: string): Promise<void> {
  await cancel(tx, "instance_id", instanceId, [...operationKinds])
}

async function cancel(
  tx: Database,
  column: "snapshot_id" | "instance_id",
  id: string,
  kinds: OperationKind[],
): Promise<void> {
  const cancelled = await tx
    .updateTable("operations")
    .set({ state: "cancelled", finished_at: clock })
    .where(column, "=", id)
    .where("kind", "in", kinds)
    .where("state", "in", ["queued", "running"])
    .returning("instance_id")
    .execute()
  for (const { instance_id } of cancelled) if (instance_id !== null) await wakeNext(tx, instance_id)
}

/** The deletion of an instance that is already under way, so that a second request joins it. */
export async function pendingInstanceDelete(tx: Database, instanceId: string): Promise<string | undefined> {
  const row = await tx
    .selectFrom("operations")
    .select("id")
    .where("instance_id", "=", instanceId)
    .where("kind", "=", "delete")
    .where("state", "in", ["queued", "running"])
    .executeTakeFirst()
  return row?.id
}

/** The operation, if there is one, after which an instance's state may be another. */
export async function pendingStateOperation(
  tx: Database,
  instanceId: string,
): Promise<{ id: string; kind: OperationKind } | undefined> {
  return tx
    .selectFrom("operations")
    .select(["id", "kind"])
    .where("instance_id", "=", instanceId)
    .where("kind", "in", [...stateOperationKinds])
    .where("state", "in", ["queued", "running"])
    .executeTakeFirst()
}

export interface OperationView {
  readonly kind: OperationKind
  readonly state: "queued" | "running" | "done" | "failed" | "cancelled"
  readonly error_code: ErrorCode | null
  /**
   * The reason of a failure. Else a warning to its caller, empty where there is none; null until the host has
   * looked.
   */
  readonly error_message: string | null
  /** True while a worker of its queue is up. */
  readonly attended: boolean
}

export async function getOperation(db: Database, id: string): Promise<OperationView> {
  return db
    .selectFrom("operations")
    .select(["kind", "state", "error_code", "error_message", attended.as("attended")])
    .where("id", "=", id)
    .executeTakeFirstOrThrow()
}

async function wakeNext(tx: Database, instanceId: string): Promise<void> {
  await sql`
    update operations set wake = wake + 1, relayed_at = null
    where id = (
      select id from operations where instance_id = ${instanceId} and state = 'queued' and relayed_at is not null
      order by arrival limit 1)`.execute(tx)
}
