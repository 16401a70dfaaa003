import { createId } from "@stillframe/domain/ids"
import { sql } from "kysely"
import { afterAll, beforeAll, expect, test } from "vitest"
import { testApi, type Reply, type TestApi } from "./test-api.ts"

const count = 25
let api: TestApi

beforeAll(async () => {
  api = await testApi()
  await api.instance("vm")
  for (let index = 0; index < count; index += 1)
    await api.ask("POST", "/instances/vm/snapshots", {
      body: { kind: "Standby", tags: { parity: index % 2 === 0 ? "even" : "odd" } },
    })
  // All within a millisecond, most within a microsecond of another: a Date could not tell them apart.
  await sql`
    update snapshots set created_at = timestamptz '2026-01-01 00:00:00Z' + n / 3 * interval '1 microsecond'
    from (select id as of, row_number() over (order by id) as n from snapshots) as numbered where id = of`.execute(
    api.db,
  )
})
afterAll(() => api[Symbol.asyncDispose]())

async function walk(path: string): Promise<{ ids: string[]; pages: number }> {
  const ids: string[] = []
  let pages = 0
  for (let next: string | undefined = path; next !== undefined; pages += 1) {
    const reply: Reply = await api.ask("GET", next)
    expect(reply.status).toBe(200)
    ids.push(...(reply.body as { id: string }[]).map(({ id }) => id))
    next = /^<(.+)>; rel="next"$/.exec(reply.headers.get("link") ?? "")?.[1]
    const cursor = reply.headers.get("x-next-cursor")
    expect(next === undefined ? null : new URL(next, api.api.url).searchParams.get("cursor")).toBe(cursor)
  }
  return { ids, pages }
}

async function ordered(direction: "asc" | "desc"): Promise<string[]> {
  const rows = await api.db
    .selectFrom("snapshots")
    .select("id")
    .orderBy("created_at", direction)
    .orderBy("id", direction)
    .execute()
  return rows.map(({ id }) => id)
}

test("pages follow one another without a gap or a repetition, newest first, also within a microsecond", async () => {
  const newest = await ordered("desc")
  for (const [limit, pages] of [
    [1, 25],
    [4, 7],
    [24, 2],
    [25, 1],
    [26, 1],
  ] as const)
    expect(await walk(`/snapshots?limit=${limit}`)).toEqual({ ids: newest, pages })
  expect((await walk("/snapshots?sort=created_at&limit=7")).ids).toEqual(await ordered("asc"))
})

test("filters hold on every page", async () => {
  const { ids, pages } = await walk("/snapshots?tags%5Bparity%5D=even&limit=5")
  expect([ids.length, pages]).toEqual([13, 3])
})

test("a page goes on where it ended, whatever was made or deleted meanwhile", async () => {
  const newest = await ordered("desc")
  const first = await api.ask("GET", "/snapshots?limit=3")
  const cursor = first.headers.get("x-next-cursor") ?? ""
  const { body } = await api.ask("POST", "/instances/vm/snapshots", { body: { kind: "Standby" } })
  await api.ask("DELETE", `/snapshots/${newest[2]}`)

  const second = await api.ask("GET", `/snapshots?limit=3&cursor=${cursor}`)
  expect(second.body.map(({ id }: { id: string }) => id)).toEqual(newest.slice(3, 6))
  await api.ask("DELETE", `/snapshots/${body.id}`)
})

test.each([
  "x",
  "%00",
  Buffer.from("[]").toString("base64url"),
  Buffer.from('["2026-01-01","a"]').toString("base64url"),
  Buffer.from(`["2026-01-01T00:00:00.000000Z","${"a".repeat(40)}"]`).toString("base64url"),
  // Postgres knows no year 0, and would say so as a fault of ours.
  Buffer.from('["0000-01-01T00:00:00.000000Z","a"]').toString("base64url"),
])("a cursor that is none, %o, is refused", async (cursor) => {
  for (const list of ["snapshots", "instances", "webhooks"]) {
    const { status, body } = await api.ask("GET", `/${list}?cursor=${cursor}`)
    expect([status, body.code]).toEqual([400, "Bad Request"])
  }
})

test("instances are listed by state, name and tags, and in pages like webhooks", async () => {
  for (const name of ["a", "b", "c"])
    await api.instance(name, { state: name === "a" ? "Stopped" : "Running" })
  await api.db.updateTable("instances").set({ tags: '{"team":"x"}' }).where("name", "=", "b").execute()
  for (let index = 0; index < 3; index += 1)
    await api.ask("POST", "/webhooks", { body: { url: `https://example.com/${createId()}` } })

  const names = async (query: string): Promise<string[]> =>
    (await api.ask("GET", `/instances?${query}`)).body.map(({ name }: { name: string }) => name)
  expect(await names("state=Stopped")).toEqual(["a"])
  expect(await names("name=c")).toEqual(["c"])
  expect(await names("tags%5Bteam%5D=x&state=Running")).toEqual(["b"])
  expect((await walk("/instances?limit=2")).pages).toBe(2)
  expect((await walk("/webhooks?limit=2")).pages).toBe(2)
})
