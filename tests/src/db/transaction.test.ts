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

  const first = inTransaction(db, async (tx) => {
    tries += 1
    await lock(tx, "a")
    aLocked.resolve()
    await bLocked.promise
    await lock(tx, "b")
    return "first"
  })
  const second = inTransaction(db, async (tx) => {
    tries += 1
    await lock(tx, "b")
    bLocked.resolve()
    await aLocked.promise
    await lock(tx, "a")
    return "second"
  })

  expect(await Promise.all([first, second])).toEqual(["first", "second"])
  expect(tries).toBe(3)
})
