import { sql } from "kysely"
import { clock, clockPlus, inTransaction, type OwnedDatabase } from "../client.ts"
import type { Database } from "../schema.ts"

/** How long a key is kept. */
const keptMs = 24 * 3_600_000
const removedPerRound = 1_000

/** Two requests with these hashes (hexadecimal) are the same. */
export interface KeyedRequest {
  readonly caller: string
  readonly method: string
  readonly path: string
  readonly key: string
  readonly bodyHash: string
}

/** The ids that a request made, further parts of its answer, and the resource as first answered. */
export interface Made {
  readonly made: Readonly<Record<string, string>>
  readonly body: object
}

export interface KeptAnswer extends Made {
  readonly bodyHash: string
}

/** Another request with the same key has been first. */
export class KeyTaken extends Error {
  override readonly name = "KeyTaken"
}

/** The first request did not commit in time. */
export class KeyInProgress extends Error {
  override readonly name = "KeyInProgress"
}

/** The result of an earlier request with this key; undefined if there was none within 24 hours. */
export async function findKept(db: Database, request: KeyedRequest): Promise<KeptAnswer | undefined> {
  const row = await db
    .selectFrom("idempotency_keys")
    .select(["body_hash as bodyHash", "made", "body"])
    .where("caller", "=", request.caller)
    .where("method", "=", request.method)
    .where("path", "=", request.path)
    .where("key", "=", request.key)
    .where("created_at", ">", clockPlus(-keptMs))
    .executeTakeFirst()
  return row && { bodyHash: row.bodyHash, made: row.made ?? {}, body: row.body ?? {} }
}

/**
 * Runs `make` in one transaction, which also keeps the key with what it has made: a twin waits for that
 * commit, so exactly one of them makes something. Throws `KeyTaken` after another's commit, `KeyInProgress`
 * when that does not come within `twinWaitMs`.
 */
export function makeOnce<T extends Made>(
  db: OwnedDatabase,
  request: KeyedRequest,
  { make, twinWaitMs }: { make: (tx: Database) => Promise<T>; twinWaitMs: number },
): Promise<T> {
  return inTransaction(db, async (tx) => {
    await claimKey(tx, request, twinWaitMs)
    const result = await make(tx)
    await tx
      .updateTable("idempotency_keys")
      .set({ made: JSON.stringify(result.made), body: JSON.stringify(result.body) })
      .where("caller", "=", request.caller)
      .where("method", "=", request.method)
      .where("path", "=", request.path)
      .where("key", "=", request.key)
      .execute()
    return result
  })
}

async function claimKey(tx: Database, request: KeyedRequest, twinWaitMs: number): Promise<void> {
  const { caller, method, path, key, bodyHash: body_hash } = request
  await sql`select set_config('lock_timeout', ${`${twinWaitMs}ms`}, true)`.execute(tx)
  const claimed = await tx
    .insertInto("idempotency_keys")
    .values({ caller, method, path, key, body_hash })
    .onConflict((conflict) =>
      conflict
        .columns(["caller", "method", "path", "key"])
        // A key that is too old to count is as good as none.
        .doUpdateSet({ body_hash, made: null, body: null, created_at: clock })
        .where("idempotency_keys.created_at", "<=", clockPlus(-keptMs)),
    )
    .returning("key")
    .executeTakeFirst()
    .catch((error: unknown) => {
      throw (error as { code?: string }).code === lockNotAvailable ? new KeyInProgress() : error
    })
  if (claimed === undefined) throw new KeyTaken()
  await sql`select set_config('lock_timeout', '0', true)`.execute(tx)
}

const lockNotAvailable = "55P03"

/** Removes some of the keys that are too old to count; returns how many. */
export async function removeOldKeys(db: Database): Promise<number> {
  const { rows } = await sql`
    delete from idempotency_keys where ctid = any(array(
      select ctid from idempotency_keys where created_at <= ${clockPlus(-keptMs)} limit ${removedPerRound}))
    returning 1`.execute(db)
  return rows.length
}
