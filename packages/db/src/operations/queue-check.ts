import type { Problem } from "@stillframe/domain/problem"
import { clock, clockPlus } from "../client.ts"
import type { Database } from "../schema.ts"

/** Dispatchers look every minute; `/ready` leaves out a result that is older. */
const freshMs = 180_000

/** Keeps what a dispatcher found when it looked at the queue. */
export async function recordQueueCheck(db: Database, found: readonly Problem[]): Promise<void> {
  const problems = JSON.stringify(found)
  await db
    .insertInto("queue_check")
    .values({ problems })
    .onConflict((conflict) => conflict.column("singleton").doUpdateSet({ problems, checked_at: clock }))
    .execute()
}

/** Empty also where no dispatcher has looked lately. */
export async function queueProblems(db: Database): Promise<readonly Problem[]> {
  const row = await db
    .selectFrom("queue_check")
    .select("problems")
    .where("checked_at", ">", clockPlus(-freshMs))
    .executeTakeFirst()
  return row?.problems ?? []
}
