import { randomBytes } from "node:crypto"
import { openDatabase, type OwnedDatabase } from "@stillframe/db/client"
import { openWaker } from "@stillframe/db/connection/wake"
import { migrate } from "@stillframe/db/migrate"
import { createId } from "@stillframe/domain/ids"
import { openQueueEngine } from "@stillframe/queue/engine"
import { testDatabase, type TestDatabase } from "@stillframe/testing/database"
import { sql } from "kysely"
import { expect, test, vi } from "vitest"

function poolOf(url: string, options: { connectionsMax: number; acquireMsMax?: number }): OwnedDatabase {
  return openDatabase({ url, onIdleError: () => undefined, ...options })
}

interface LimitedRole extends AsyncDisposable {
  readonly url: string
  allow(connections: number): Promise<void>
}

/** A role that may open so many connections to the database, which it owns. */
async function limitedRole({ db, url }: TestDatabase, connections: number): Promise<LimitedRole> {
  const name = `role_${createId()}`
  const password = randomBytes(16).toString("hex")
  await sql
    .raw(
      `create role ${name} login password '${password}' connection limit ${connections} in role current_user`,
    )
    .execute(db)
  const own = new URL(url)
  own.username = name
  own.password = password
  return {
    url: own.href,
    allow: async (limit) => void (await sql.raw(`alter role ${name} connection limit ${limit}`).execute(db)),
    async [Symbol.asyncDispose]() {
      await sql.raw(`drop owned by ${name}; drop role ${name}`).execute(db)
    },
  }
}

test("a query that gets no connection in time fails with words that name the pool and its setting", async () => {
  await using place = await testDatabase()
  await using db = poolOf(place.url, { connectionsMax: 1, acquireMsMax: 2_000 })

  const held = db.connection().execute(async () => {
    await expect(sql`select 1`.execute(db)).rejects.toMatchObject({
      code: "unavailable",
      message: expect.stringMatching(
        /^all 1 database connections of this process were in use.*DATABASE_CONNECTIONS\.$/,
      ),
    })
  })

  await held
  expect((await sql`select 1 as one`.execute(db)).rows).toEqual([{ one: 1 }])
})

test("a pool that Postgres refuses more connections makes do with those it has", async () => {
  await using place = await testDatabase()
  await using role = await limitedRole(place, 2)
  await using db = poolOf(role.url, { connectionsMax: 8 })

  const answers = await Promise.all(
    Array.from({ length: 30 }, () => sql`select 1 as one from pg_sleep(0.01)`.execute(db)),
  )

  expect(answers.map(({ rows }) => rows)).toEqual(Array.from({ length: 30 }, () => [{ one: 1 }]))
})

test("a Postgres without a connection to spare is waited for, and told of in words", async () => {
  await using place = await testDatabase()
  await using role = await limitedRole(place, 0)
  await using impatient = poolOf(role.url, { connectionsMax: 2, acquireMsMax: 2_000 })
  await using patient = poolOf(role.url, { connectionsMax: 2 })
  const waiting = sql`select 1 as one`.execute(patient)

  await expect(migrate(impatient)).rejects.toThrow(
    /no connection to spare for this user\. Raise max_connections/,
  )
  await role.allow(2)

  expect((await waiting).rows).toEqual([{ one: 1 }])
})

test("a worker of the queue waits for a connection, without asking in a hurry, and then works", async () => {
  await using place = await testDatabase()
  await using role = await limitedRole(place, 10)
  const errors: Error[] = []
  const seen = Promise.withResolvers<string>()
  const engine = await openQueueEngine({ databaseUrl: role.url, onError: (error) => void errors.push(error) })
  try {
    await role.allow(0)
    await engine.consume("q", { concurrency: 1, handler: async (id) => seen.resolve(id) })
    await vi.waitUntil(() => errors.length >= 3, { timeout: 20_000 })
    await role.allow(10)
    await engine.add([{ queue: "q", id: "a1", wake: 0 }])

    expect(await seen.promise).toBe("a1")
  } finally {
    await engine.close()
  }
  expect(errors.length).toBeLessThan(30)
  expect(errors[0]?.message).toMatch(/^the queue cannot reach Postgres at .* no connection to spare/)
})

test("queue and workers of one process share few connections", async () => {
  await using place = await testDatabase()
  const engine = await openQueueEngine({ databaseUrl: place.url, onError: () => undefined })
  const count = async (): Promise<number> => {
    const { rows } = await sql<{ count: number }>`
      select count(*)::int as count from pg_stat_activity
      where datname = current_database() and pid <> pg_backend_pid()`.execute(place.db)
    return rows[0]?.count ?? 0
  }
  try {
    const done: string[] = []
    for (const queue of ["a", "b"])
      await engine.consume(queue, { concurrency: 1, handler: async (id) => void done.push(id) })
    const jobs = Array.from({ length: 40 }, (_, n) => ({ queue: n % 2 ? "a" : "b", id: `j${n}`, wake: 0 }))
    await Promise.all(jobs.map((job) => engine.add([job])))
    await vi.waitUntil(() => done.length === jobs.length, { timeout: 20_000 })

    // Two for queries, and one for each worker to listen by.
    expect(await count()).toBeLessThanOrEqual(4)
  } finally {
    await engine.close()
  }
})

test.each([
  ["a wrong password", (url: URL) => (url.password = "a-wrong-password"), /refuses the user or the password/],
  ["no such database", (url: URL) => (url.pathname = "/nowhere"), /does not exist.*Create it/],
  [
    "nobody listening",
    (url: URL) => (url.port = "1"),
    /^cannot reach Postgres at \S+:1: nothing listens there\. Start it/,
  ],
])("%s is told in words, without the password", async (_, change, words) => {
  await using place = await testDatabase()
  const url = new URL(place.url)
  const { password } = url
  change(url)
  await using db = poolOf(url.href, { connectionsMax: 2 })

  const errors = await Promise.all(
    [migrate(db), openWaker({ url: url.href, onError: () => undefined })].map((opened) =>
      opened.then(
        () => expect.unreachable(),
        (error: unknown) => error as Error,
      ),
    ),
  )

  for (const { message, stack = "" } of errors) {
    expect(message).toMatch(words)
    for (const secret of [password, "a-wrong-password"]) expect(message + stack).not.toContain(secret)
  }
})
