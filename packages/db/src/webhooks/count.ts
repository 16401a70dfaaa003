import { sql } from "kysely"
import type { Database } from "../schema.ts"

/**
 * Counts all webhooks and those whose receiver is `host`, a URL's `hostname` without its last dot. It leaves
 * out the one with the id `except`. Others that count wait until the transaction ends, so what it then adds
 * is within the limit it has judged.
 */
export async function countWebhooks(
  tx: Database,
  { host, except = "" }: { host: string; except?: string | undefined },
): Promise<{ all: number; toHost: number }> {
  // A statement of its own: the count must see what was committed before the lock was had.
  await sql`select pg_advisory_xact_lock(hashtextextended('webhooks', 0))`.execute(tx)
  return tx
    .selectFrom("webhooks")
    .select(({ fn }) => [
      fn.countAll<number>().as("all"),
      fn
        .countAll<number>()
        .filterWhere(
          sql<boolean>`rtrim(substring(url from '^https?://(\\[[^]]*\\]|[^/:?#]*)'), '.') = ${host}`,
        )
        .as("toHost"),
    ])
    .where("id", "<>", except)
    .executeTakeFirstOrThrow()
}
