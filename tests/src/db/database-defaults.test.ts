import { inTransaction, now, openDatabase } from "@stillframe/db/client"
import { openWaker } from "@stillframe/db/connection/wake"
import { migrate } from "@stillframe/db/migrate"
import { openQueueEngine } from "@stillframe/queue/engine"
import { testDatabase } from "@stillframe/testing/database"
import { sql } from "kysely"
import { expect, test } from "vitest"
import { statuses, testApi } from "../api/test-api.ts"
import { alterDatabase } from "./alter-database.ts"

const unusual = [
  "datestyle = 'German, DMY'",
  "intervalstyle = 'sql_standard'",
  "timezone = 'Asia/Kolkata'",
  "default_transaction_isolation = 'serializable'",
  "standard_conforming_strings = off",
  "bytea_output = 'escape'",
  "extra_float_digits = -15",
  "array_nulls = off",
  "transform_null_equals = on",
  "gin_fuzzy_search_limit = 1",
  "synchronous_commit = off",
  "statement_timeout = '20s'",
  "lock_timeout = '20s'",
  "idle_in_transaction_session_timeout = '20s'",
  "idle_session_timeout = '20s'",
]

test("a connection relies on no default of the database", async () => {
  await using place = await testDatabase()
  await alterDatabase(place.url, ...unusual)

  const { rows } = await sql<{ name: string; setting: string }>`
    select name, setting from pg_settings
    where source = 'database'`.execute(place.db)

  expect(rows).toEqual([])
  expect(await now(place.db)).toBeInstanceOf(Date)
})

test("with unusual defaults of the database an API answers many creates at once as ever", async () => {
  await using api = await testApi({ databaseDefaults: unusual })
  const { id } = await api.instance("a")
  const create = (n: number) =>
    api.ask("POST", `/instances/${id}/snapshots`, {
      body: { kind: "Standby" },
      headers: { "idempotency-key": `${n}` },
    })

  const answers = await Promise.all(Array.from({ length: 30 }, (_, n) => create(n)))

  expect(statuses(answers)).toEqual(Array.from({ length: 30 }, () => 202))
})

test("with unusual defaults of the database the queue hands out jobs and a wake-up arrives", async () => {
  await using place = await testDatabase()
  await alterDatabase(place.url, ...unusual)
  const errors: Error[] = []
  const seen = Promise.withResolvers<string>()
  const woken = Promise.withResolvers<void>()
  const waker = await openWaker({ url: place.url, onError: (error) => void errors.push(error) })
  waker.listen("deliveries", () => woken.resolve())
  const engine = await openQueueEngine({
    databaseUrl: place.url,
    onError: (error) => void errors.push(error),
  })
  try {
    await engine.consume("q", { concurrency: 1, handler: async (id) => seen.resolve(id) })
    await engine.add([{ queue: "q", id: "a1", wake: 0 }])
    waker.wake("deliveries")

    expect(await seen.promise).toBe("a1")
    await woken.promise
  } finally {
    await engine.close()
    await waker.close()
  }
  expect(errors).toEqual([])
})

test("a database that takes no writes is refused in words", async () => {
  await using place = await testDatabase()
  await alterDatabase(place.url, "default_transaction_read_only = on")

  await expect(migrate(place.db)).rejects.toThrow(
    /read-only: default_transaction_read_only is on\. Turn it off/,
  )
})

test("a database that stops taking writes is told of in words, and the same request may be sent again", async () => {
  await using api = await testApi()
  const { id } = await api.instance("a")
  await alterDatabase(api.databaseUrl, "default_transaction_read_only = on")
  await sql`select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()`.execute(api.db)
  const create = () => api.ask("POST", `/instances/${id}/snapshots`, { body: { kind: "Standby" } })

  await expect
    .poll(async () => (await create()).body.message)
    .toBe("the database takes no writes at present; an operator must point DATABASE_URL at the primary")
  const { status, headers } = await create()
  expect([status, headers.get("x-should-retry")]).toEqual([503, "true"])
})

test("a search_path without a schema is refused in words", async () => {
  await using place = await testDatabase()
  await alterDatabase(place.url, "search_path = nowhere")

  await expect(migrate(place.db)).rejects.toThrow(/search_path \(nowhere\) names no schema/)
})

test("a database with another encoding than UTF8 is refused in words", async () => {
  await using place = await testDatabase()
  const url = new URL(place.url)
  const latin = `${url.pathname.slice(1)}_latin`
  await sql`create database ${sql.id(latin)} encoding 'LATIN1' locale 'C' template template0`.execute(
    place.db,
  )
  url.pathname = `/${latin}`
  const db = openDatabase({ url: url.href, onIdleError: () => undefined })
  try {
    await expect(migrate(db)).rejects.toThrow(/encoding is LATIN1.*ENCODING 'UTF8'/)
  } finally {
    await db.destroy()
    await sql`drop database ${sql.id(latin)} with (force)`.execute(place.db)
  }
})

test("through a transaction-mode pooler, defaults that can't be set are refused with the command that mends them", async () => {
  await using place = await testDatabase()
  await alterDatabase(place.url, "default_transaction_isolation = 'serializable'", "statement_timeout = '5s'")
  await using db = openDatabase({ url: place.url, pooled: true, onIdleError: () => undefined })

  await expect(migrate(db)).rejects.toThrow(
    /default_transaction_isolation is 'serializable'.*ALTER ROLE \w+ IN DATABASE \w+ SET default_transaction_isolation = 'read committed'/,
  )
})

test("through a transaction-mode pooler, dates come as ISO dates and transactions are read committed", async () => {
  await using place = await testDatabase()
  await alterDatabase(place.url, "datestyle = 'German'", "default_transaction_isolation = 'serializable'")
  await using db = openDatabase({ url: place.url, pooled: true, onIdleError: () => undefined })

  const level = await inTransaction(db, (tx) =>
    sql<{ level: string }>`select current_setting('transaction_isolation') as level`.execute(tx),
  )

  expect(level.rows).toEqual([{ level: "read committed" }])
  expect(await now(db)).toBeInstanceOf(Date)
})
