import { sql } from "kysely"
import { clock, clockPlus } from "./client.ts"
import type { Database } from "./schema.ts"

/** A token that was not seen for so long is forgotten. */
const rememberedMs = 30 * 24 * 3_600_000
/** More are not told apart: a client may make one for each request. */
const toldApartMax = 10_000

/** Remembers, by their hashes, tokens without `exp`. Returns how many of them are new. */
export async function rememberEndlessTokens(db: Database, hashes: readonly string[]): Promise<number> {
  await db.deleteFrom("endless_tokens").where("seen_at", "<=", clockPlus(-rememberedMs)).execute()
  const { rows } = await sql<{ added: boolean }>`
    insert into endless_tokens (token_hash)
    select hash from unnest(${hashes.toSorted()}::text[]) as hash
    where (select count(*) from endless_tokens) < ${toldApartMax}
    on conflict (token_hash) do update set seen_at = ${clock}
    returning xmax = 0 as added`.execute(db)
  return rows.filter(({ added }) => added).length
}

/** How many different tokens without `exp` were seen in the last 30 days, up to 10,000. */
export async function countEndlessTokens(db: Database): Promise<number> {
  const { count } = await db
    .selectFrom("endless_tokens")
    .select(sql<number>`count(*)::int`.as("count"))
    .where("seen_at", ">", clockPlus(-rememberedMs))
    .executeTakeFirstOrThrow()
  return count
}
