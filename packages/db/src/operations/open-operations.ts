import { clock } from "../client.ts"
import type { Database } from "../schema.ts"

/**
 * Whether any operation waits for an instance or is at work on it, cancelled ones whose owner has not let go
 * included.
 */
export async function instanceBusy(db: Database, instanceId: string): Promise<boolean> {
  const row = await db
    .selectFrom("operations")
    .select("id")
    .where("instance_id", "=", instanceId)
    .where((operation) =>
      operation.or([
        operation("state", "in", ["queued", "running"]),
        operation.and([operation("token", "is not", null), operation("lease_expires_at", ">", clock)]),
      ]),
    )
    .executeTakeFirst()
  return row !== undefined
}

/** Whether a cancelled operation of this snapshot may still be at work on its files. */
export async function cancelledStillAtWork(db: Database, snapshotId: string): Promise<boolean> {
  const row = await db
    .selectFrom("operations")
    .select("id")
    .where("snapshot_id", "=", snapshotId)
    .where("state", "=", "cancelled")
    .where("token", "is not", null)
    .where("lease_expires_at", ">", clock)
    .executeTakeFirst()
  return row !== undefined
}

/** Whether any operation of a snapshot is open, or a cancelled one may still be at work. */
export async function snapshotBusy(db: Database, snapshotId: string): Promise<boolean> {
  const row = await db
    .selectFrom("operations")
    .select("id")
    .where("snapshot_id", "=", snapshotId)
    .where((operation) =>
      operation.or([operation("state", "in", ["queued", "running"]), operation("token", "is not", null)]),
    )
    .executeTakeFirst()
  return row !== undefined
}

/** Whether an operation holds this token, so that what it made may still be worked on. */
export async function tokenInUse(db: Database, token: string): Promise<boolean> {
  const row = await db.selectFrom("operations").select("id").where("token", "=", token).executeTakeFirst()
  return row !== undefined
}
