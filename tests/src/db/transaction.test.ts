import { inTransaction } from "@stillframe/db/client"
import type { Database } from "@stillframe/db/schema"
import { testDatabase } from "@stillframe/testing/database"
import { expect, test } from "vitest"

test("of two transactions that meet in a deadlock both are done, one of them after another try", async () => {
  await using place = await testDatabase()
  const { db } = place
  await db
    .insertInto("pools")
    .values([{ name: "a" }, { name: "b" }])
    .execute()
  const lock = (tx: Database, name: string): Promise<unknown> =>
    tx.selectFrom("pools").select("name").where("name", "=", name).forUpdate().execute()
  const [aLocked, bLocked] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  let tries = 0

  // A second try that is quicker than Postgres hands the lock on has it again, and meets the other in another
  // deadlock.
  const first: Promise<string> = inTransaction(db, async (tx) => {
    tries += 1
    if (tries > 2) await second
    await lock(tx, "a")
    aLocked.resolve()
    await bLocked.promise
    await lock(tx, "b")
    return "first"
  })
  const second: Promise<string> = inTransaction(db, async (tx) => {
    tries += 1
    if (tries > 2) await first
    await lock(tx, "b")
    bLocked.resolve()
    await aLocked.promise
    await lock(tx, "a")
    return "second"
  })

  expect(await Promise.all([first, second])).toEqual(["first", "second"])
  expect(tries).toBe(3)
})
