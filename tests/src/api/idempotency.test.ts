import { inTransaction } from "@stillframe/db/client"
import { removeOldKeys } from "@stillframe/db/snapshots/idempotency"
import { sql } from "kysely"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { asWorker } from "./as-worker.ts"
import { statuses, testApi, type Reply, type TestApi } from "./test-api.ts"

let api: TestApi
beforeAll(async () => {
  api = await testApi()
  await api.instance("vm")
})
afterAll(() => api[Symbol.asyncDispose]())

const standby = { kind: "Standby" }

function create(key: string, body: object = standby, more: Record<string, string> = {}): Promise<Reply> {
  return api.ask("POST", "/instances/vm/snapshots", { body, headers: { "idempotency-key": key, ...more } })
}

async function count(table: "snapshots" | "instances" | "webhooks"): Promise<number> {
  const { rows } = await sql<{ n: number }>`select count(*)::int as n from ${sql.table(table)}`.execute(
    api.db,
  )
  return rows[0]?.n ?? 0
}

describe("an Idempotency-Key", () => {
  test("case 72: sent twice makes one snapshot, and the second answer says that it is a replay", async () => {
    const before = await count("snapshots")
    const first = await create("one")
    const second = await create("one")

    expect([first.status, second.status]).toEqual([202, 202])
    expect(second.body).toEqual(first.body)
    expect(first.headers.get("idempotent-replayed")).toBeNull()
    expect(second.headers.get("idempotent-replayed")).toBe("true")
    expect(await count("snapshots")).toBe(before + 1)
  })

  test("with another body is a mistake, with other white space or order it is not", async () => {
    await create("two", { kind: "Standby", name: "two" })
    const other = await create("two", { kind: "Standby", name: "three" })
    const same = await api.ask("POST", "/instances/vm/snapshots", {
      body: '{ "name":"two",\n"kind":"Standby" }',
      headers: { "idempotency-key": "two" },
    })

    expect([other.status, other.body.code]).toEqual([422, "idempotency_mismatch"])
    expect(same.status).toBe(202)
  })

  test("of twins at the same moment exactly one makes something, and all are answered with it", async () => {
    const before = await count("snapshots")
    const replies = await Promise.all(Array.from({ length: 8 }, () => create("twins")))

    expect(new Set(replies.map(({ body }) => body.id)).size).toBe(1)
    expect(statuses(replies)).toEqual(Array(8).fill(202))
    expect(replies.filter(({ headers }) => headers.has("idempotent-replayed"))).toHaveLength(7)
    expect(await count("snapshots")).toBe(before + 1)
  })

  test("belongs to one caller, method and path", async () => {
    await api.instance("other")
    const mine = await create("shared")
    const others = await api.ask("POST", "/instances/vm/snapshots", {
      body: standby,
      headers: { "idempotency-key": "shared" },
      claims: { sub: "somebody else" },
    })
    const elsewhere = await api.ask("POST", "/instances/other/snapshots", {
      body: standby,
      headers: { "idempotency-key": "shared" },
    })

    expect(new Set([mine, others, elsewhere].map(({ body }) => body.id)).size).toBe(3)
  })

  test("of a request that was refused counts for nothing", async () => {
    await api.instance("later", { state: "Initializing" })
    const ask = (): Promise<Reply> =>
      api.ask("POST", "/instances/later/snapshots", {
        body: standby,
        headers: { "idempotency-key": "early" },
      })

    expect((await ask()).status).toBe(409)
    await api.db.updateTable("instances").set({ state: "Running" }).where("name", "=", "later").execute()
    const answer = await ask()
    expect([answer.status, answer.headers.get("idempotent-replayed")]).toEqual([202, null])
  })

  test.each(["", "a".repeat(256), "ключ".normalize(), "a b"])("%o is no key", async (key) => {
    const { status, body } = await api.ask("POST", "/instances/vm/snapshots", {
      body: standby,
      headers: { "idempotency-key": encodeHeader(key) },
    })
    expect([status, body.code]).toEqual([400, "Bad Request"])
  })

  test("is answered with the resource as it is now, and with the recorded one when that is gone", async () => {
    await using own = await testApi()
    await own.instance("vm")
    const worker = asWorker(own)
    const ask = (): Promise<Reply> =>
      own.ask("POST", "/instances/vm/snapshots", { body: standby, headers: { "idempotency-key": "k" } })

    const first = await ask()
    await worker.captured(await worker.take())
    const captured = await ask()
    await own.ask("DELETE", `/snapshots/${first.body.id}`)
    const gone = await ask()

    expect([first.status, captured.status, gone.status]).toEqual([202, 201, 202])
    expect(captured.body).toMatchObject({ id: first.body.id, status: "ready" })
    expect(gone.body).toEqual(first.body)
  })

  test("of a webhook shows its secret again, to the same caller", async () => {
    const ask = (): Promise<Reply> =>
      api.ask("POST", "/webhooks", {
        body: { url: "https://example.com/hook" },
        headers: { "idempotency-key": "hook" },
      })
    const first = await ask()
    const second = await ask()

    expect(first.status).toBe(201)
    expect(first.body.secret).toMatch(/^whsec_/)
    expect(second.body).toEqual(first.body)
    expect(await count("webhooks")).toBe(1)

    await api.ask("DELETE", `/webhooks/${first.body.id}`)
    const gone = await ask()
    expect([gone.status, gone.body]).toEqual([201, first.body])
    expect(await count("webhooks")).toBe(0)
  })

  test("of a webhook that was kept without its secret shows the rest", async () => {
    await using own = await testApi()
    const ask = (): Promise<Reply> =>
      own.ask("POST", "/webhooks", {
        body: { url: "https://example.com/hook" },
        headers: { "idempotency-key": "hook" },
      })
    const { secret: _, ...shown } = (await ask()).body
    await sql`update idempotency_keys set made = made - 'sealedSecret'`.execute(own.db)

    const again = await ask()

    expect([again.status, again.body]).toEqual([201, shown])
  })

  test("of a launch and of a fork joins the work that is under way", async () => {
    await using own = await testApi()
    await own.host("h1")
    const worker = asWorker(own)
    const launch = (): Promise<Reply> =>
      own.ask("POST", "/instances", {
        body: { name: "vm", image: "heartbeat" },
        headers: { "idempotency-key": "launch" },
      })

    const first = launch()
    const operation = await worker.take()
    const second = launch()
    await worker.launched(operation)

    const [one, two] = await Promise.all([first, second])
    expect([one.status, two.status]).toEqual([201, 201])
    expect(two.body.id).toBe(one.body.id)
    expect(one.body.state).toBe("Running")
  })

  test("whose first request does not come to its commit is in progress", async () => {
    const locked = Promise.withResolvers<void>()
    const release = Promise.withResolvers<void>()
    const holding = inTransaction(api.db, async (tx) => {
      const { caller, method, path } = await tx
        .selectFrom("idempotency_keys")
        .selectAll()
        .where("key", "=", "one")
        .executeTakeFirstOrThrow()
      const key = { caller, method, path, key: "held", body_hash: "" }
      await tx.insertInto("idempotency_keys").values(key).execute()
      locked.resolve()
      await release.promise
    })
    await locked.promise

    const { status, body, headers } = await create("held")
    release.resolve()
    await holding

    expect([status, body.code, headers.get("x-should-retry")]).toEqual([
      409,
      "idempotency_in_progress",
      "true",
    ])
  })

  test("is forgotten after 24 hours", async () => {
    const first = await create("old")
    await api.db
      .updateTable("idempotency_keys")
      .set({ created_at: new Date(Date.now() - 24 * 3_600_000 - 1_000) })
      .where("key", "=", "old")
      .execute()
    const second = await create("old")

    expect(second.body.id).not.toBe(first.body.id)
    await api.db
      .updateTable("idempotency_keys")
      .set({ created_at: new Date(0) })
      .execute()
    expect(await removeOldKeys(api.db)).toBeGreaterThan(0)
    expect(await api.db.selectFrom("idempotency_keys").select("key").execute()).toEqual([])
  })
})

/** A header's value is bytes: others than ASCII go as they are in UTF-8. */
function encodeHeader(value: string): string {
  return Buffer.from(value).toString("latin1")
}
