import { inTransaction, type OwnedDatabase } from "./client.ts"
import { clusterId } from "./hosts.ts"
import type { Database } from "./schema.ts"

/** More than enough to recognise a directory by. */
const payloadsMax = 1_000
const poolsMax = 1_000

interface KnownPool {
  readonly name: string
  readonly installation: string
  readonly id: string | undefined
  readonly pools: { name: string; id: string }[]
  readonly payloads: { snapshotId: string; payload: string }[]
}

/** The database's side of a pool's identity, as `claimPool` asks for it. */
export function poolRegister(
  db: OwnedDatabase,
  name: string,
): {
  look(): Promise<KnownPool>
  settle(decide: (known: KnownPool) => Promise<string>): Promise<string>
} {
  return {
    look: () => knownPool(db, name),
    /** `decide` looks at a directory inside the transaction: it may do so twice, and only at a start. */
    async settle(decide) {
      await clusterId(db)
      return inTransaction(db, async (tx) => {
        // One pool at a time in the whole installation: two names may mean one directory.
        await tx.selectFrom("cluster").select("id").forUpdate().executeTakeFirstOrThrow()
        const id = await decide(await knownPool(tx, name))
        await tx
          .insertInto("pools")
          .values({ name, id })
          .onConflict((conflict) => conflict.column("name").doUpdateSet({ id }))
          .execute()
        return id
      })
    },
  }
}

async function knownPool(db: Database, name: string): Promise<KnownPool> {
  const installation = await clusterId(db)
  const pools = await db
    .selectFrom("pools")
    .select(["name", "id"])
    .where("id", "is not", null)
    .$narrowType<{ id: string }>()
    .limit(poolsMax)
    .execute()
  const payloads = await db
    .selectFrom("snapshots")
    .select(["id as snapshotId", "payload"])
    .where("pool", "=", name)
    .where("status", "=", "ready")
    .where("payload", "is not", null)
    .$narrowType<{ payload: string }>()
    .orderBy("created_at", "desc")
    .limit(payloadsMax)
    .execute()
  const id = pools.find((pool) => pool.name === name)?.id
  return { name, installation, id, pools, payloads }
}
