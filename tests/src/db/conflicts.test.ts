import { inTransaction, type OwnedDatabase } from "@stillframe/db/client"
import { testDatabase } from "@stillframe/testing/database"
import { sql } from "kysely"
import { expect, test } from "vitest"

/**
 * A function of the database that fails as a conflict so many times; a sequence counts also what is rolled
 * back.
 */
async function conflicting(db: OwnedDatabase, failures: number, code: string): Promise<void> {
  await sql`create sequence tries`.execute(db)
  await sql
    .raw(
      `create function conflicted() returns bigint language plpgsql as $$
       begin
         if nextval('tries') <= ${failures} then raise exception 'a conflict' using errcode = '${code}'; end if;
         return currval('tries');
       end $$`,
    )
    .execute(db)
}

const call = sql<{ tries: number }>`select conflicted() as tries`

test.each(["40001", "40P01"])(
  "a single statement that Postgres ends with %s is run again until it is done",
  async (code) => {
    await using place = await testDatabase()
    await conflicting(place.db, 3, code)

    expect((await call.execute(place.db)).rows).toEqual([{ tries: 4 }])
  },
)

test("a transaction that Postgres ends for another's sake is run again as a whole", async () => {
  await using place = await testDatabase()
  const { db } = place
  await conflicting(db, 2, "40001")
  let runs = 0

  await inTransaction(db, async (tx) => {
    runs += 1
    await tx
      .insertInto("pools")
      .values({ name: `run-${runs}` })
      .execute()
    await call.execute(tx)
  })

  expect(runs).toBe(3)
  expect(await db.selectFrom("pools").select("name").execute()).toEqual([{ name: "run-3" }])
})

test("a conflict that does not end is given up", async () => {
  await using place = await testDatabase()
  await conflicting(place.db, 1_000, "40001")

  await expect(call.execute(place.db)).rejects.toMatchObject({ code: "40001" })
  await expect(inTransaction(place.db, (tx) => call.execute(tx))).rejects.toMatchObject({ code: "40001" })

  expect((await sql`select last_value as tries from tries`.execute(place.db)).rows).toEqual([{ tries: 12 }])
})
