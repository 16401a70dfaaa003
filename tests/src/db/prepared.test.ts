import { openDatabase, type OwnedDatabase } from "@stillframe/db/client"
import { resolveInstance } from "@stillframe/db/instances/shown"
import { testDatabase } from "@stillframe/testing/database"
import { sql } from "kysely"
import { expect, test } from "vitest"

function oneConnection(url: string, pooled = false): OwnedDatabase {
  return openDatabase({ url, pooled, connectionsMax: 1, onIdleError: () => undefined })
}

async function preparedNames(db: OwnedDatabase): Promise<string[]> {
  const { rows } = await sql<{ name: string }>`select name from pg_prepared_statements`.execute(db)
  return rows.map(({ name }) => name)
}

test("a connection prepares a marked statement once", async () => {
  await using place = await testDatabase()
  await using db = oneConnection(place.url)

  for (const name of ["a", "b"]) await expect(resolveInstance(db, name)).rejects.toThrow("not found")

  expect(await preparedNames(db)).toEqual(["resolve_instance"])
})

test("a prepared statement outlives a column that a later version adds", async () => {
  await using place = await testDatabase()
  await using db = oneConnection(place.url)
  await expect(resolveInstance(db, "a")).rejects.toThrow("not found")

  await sql`alter table instances add column of_a_later_version text`.execute(db)

  await expect(resolveInstance(db, "a")).rejects.toThrow("not found")
})

test("behind a pooler in transaction mode nothing is prepared", async () => {
  await using place = await testDatabase()
  await using db = oneConnection(place.url, true)
  await expect(resolveInstance(db, "a")).rejects.toThrow("not found")

  expect(await preparedNames(db)).toEqual([])
})
