import { compressQueue } from "@stillframe/domain/queues"
import { inTransaction, type OwnedDatabase } from "../client.ts"
import type { Database } from "../schema.ts"
import { clusterId } from "./hosts.ts"

/** More than enough to recognise a directory by. */
const payloadsMax = 1_000
const poolsMax = 1_000
const straysMax = 10_000

interface KnownPool {
  readonly name: string
  readonly installation: string
  readonly id: string | undefined
  readonly pools: { name: string; id: string }[]
  readonly payloads: { snapshotId: string; payload: string }[]
  readonly deleting: boolean
  readonly strays: { snapshotId: string; payload: string; pool: string }[]
}

interface SettledPool {
  readonly id: string
  readonly taken: readonly string[]
}

/** The database's side of a pool's identity, as `claimPool` asks for it. */
export function poolRegister(
  db: OwnedDatabase,
  { pool: name, host }: { pool: string; host: string },
): {
  look(): Promise<KnownPool>
  settle(decide: (known: KnownPool) => Promise<SettledPool>): Promise<string>
} {
  return {
    look: () => knownPool(db, name, host),
    async settle(decide) {
      for (;;) {
        const known = await knownPool(db, name, host)
        // Outside of any transaction: a mount that hangs must not keep other pools from being settled.
        const settled = await decide(known)
        if (await write(settled, known)) return settled.id
      }
    },
  }

  /** False where the facts that the decision was made by are others by now. */
  function write({ id, taken }: SettledPool, known: KnownPool): Promise<boolean> {
    return inTransaction(db, async (tx) => {
      // One pool at a time in the whole installation: two names may mean one directory.
      await tx.selectFrom("cluster").select("id").forUpdate().executeTakeFirstOrThrow()
      const { strays, ...facts } = await knownPool(tx, name, host)
      if (JSON.stringify(facts) !== JSON.stringify({ ...known, strays: undefined })) return false
      await tx
        .insertInto("pools")
        .values({ name, id })
        .onConflict((conflict) => conflict.column("name").doUpdateSet({ id }))
        .execute()
      for (const { snapshotId } of strays)
        if (taken.includes(snapshotId)) await moveSnapshot(tx, snapshotId, name)
      return true
    })
  }
}

/** With the work that waits for its files. */
async function moveSnapshot(tx: Database, id: string, pool: string): Promise<void> {
  await tx.updateTable("snapshots").set({ pool }).where("id", "=", id).execute()
  await tx
    .updateTable("operations")
    .set((row) => ({ queue: compressQueue(pool), relayed_at: null, wake: row("wake", "+", 1) }))
    .where("snapshot_id", "=", id)
    .where("kind", "in", ["compress", "verify", "delete"])
    .where("state", "=", "queued")
    .execute()
}

async function knownPool(db: Database, name: string, host: string): Promise<KnownPool> {
  const installation = await clusterId(db)
  const pools = await db
    .selectFrom("pools")
    .select(["name", "id"])
    .where("id", "is not", null)
    .$narrowType<{ id: string }>()
    .orderBy("name")
    .limit(poolsMax)
    .execute()
  const id = pools.find((pool) => pool.name === name)?.id
  const payloads = await published(db)
    .where("status", "=", "ready")
    .where("pool", "=", name)
    .limit(payloadsMax)
    .execute()
  const deleting = await published(db)
    .where("status", "=", "deleting")
    .where("pool", "=", name)
    .limit(1)
    .execute()
  const strays =
    id === undefined
      ? await published(db)
          .where("pool", "in", (pool) => pool.selectFrom("pools").select("name").where("id", "is not", null))
          .where("host", "=", host)
          .limit(straysMax)
          .execute()
      : []
  return { name, installation, id, pools, payloads, deleting: deleting.length > 0, strays }
}

/** With files, those that are being deleted too. */
const published = (db: Database) =>
  db
    .selectFrom("snapshots")
    .select(["id as snapshotId", "payload", "pool"])
    .where("status", "in", ["ready", "deleting"])
    .where("payload", "is not", null)
    .$narrowType<{ payload: string }>()
    .orderBy("created_at", "desc")
