import { sql } from "kysely"
import { inTransaction, type OwnedDatabase } from "../client.ts"

/**
 * Promises `bytes` of a pool to a running operation if `freeBytes` (by statfs) less what other running
 * operations were promised leaves `floorBytes`. False: there is no room. The promise ends with the operation,
 * however that ends; the lock on the pool's row makes it exclusive.
 */
export function reserveSpace(
  db: OwnedDatabase,
  { operationId, pool, bytes, freeBytes, floorBytes }: SpaceRequest,
): Promise<boolean> {
  return inTransaction(db, async (tx) => {
    await tx
      .insertInto("pools")
      .values({ name: pool })
      .onConflict((conflict) => conflict.doNothing())
      .execute()
    await tx.selectFrom("pools").select("name").where("name", "=", pool).forUpdate().execute()
    const { reserved } = await tx
      .selectFrom("operations")
      .innerJoin("snapshots", "snapshots.id", "operations.snapshot_id")
      .select(sql<number>`coalesce(sum(reserved_bytes), 0)::bigint`.as("reserved"))
      .where("snapshots.pool", "=", pool)
      .where("operations.state", "=", "running")
      .where("operations.id", "!=", operationId)
      .executeTakeFirstOrThrow()
    if (freeBytes - reserved - bytes < floorBytes) return false
    await tx.updateTable("operations").set({ reserved_bytes: bytes }).where("id", "=", operationId).execute()
    return true
  })
}

export interface SpaceRequest {
  readonly operationId: string
  readonly pool: string
  readonly bytes: number
  readonly freeBytes: number
  readonly floorBytes: number
}
