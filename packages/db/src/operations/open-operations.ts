import { clock } from "../client.ts"
import type { Database } from "../schema.ts"

/**
 * True if an operation of the instance is queued or running, or cancelled and not yet let go by its owner.
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

/** True if a cancelled operation of this snapshot may still write its files. */
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

/** True if an operation of the snapshot is open, or a cancelled one may still be at work. */
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

/** True if an operation holds this token, so its files may still be written. */
export async function tokenInUse(db: Database, token: string): Promise<boolean> {
  const row = await db.selectFrom("operations").select("id").where("token", "=", token).executeTakeFirst()
  return row !== undefined
}
