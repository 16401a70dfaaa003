import { expect, test } from "vitest"
import { asWorker } from "./as-worker.ts"
import { statuses, testApi, type TestApi } from "./test-api.ts"

async function create(api: TestApi, instance: string, body: object = {}): Promise<string> {
  const reply = await api.ask("POST", `/instances/${instance}/snapshots`, {
    body: { kind: "Standby", ...body },
  })
  expect(reply.status).toBe(202)
  return reply.body.id
}

async function ids(api: TestApi, query: string): Promise<string[]> {
  const { status, body } = await api.ask("GET", `/snapshots${query}`)
  expect(status, `for ${query}`).toBe(200)
  return (body as { id: string }[]).map(({ id }) => id)
}

async function queryError(api: TestApi, query: string): Promise<string> {
  const { status, body } = await api.ask("GET", `/snapshots${query}`)
  expect([status, body.code], `for ${query}`).toEqual([400, "Bad Request"])
  return body.message
}

test("case 41: no snapshots are an empty array", async () => {
  await using api = await testApi()

  expect((await api.ask("GET", "/snapshots")).body).toEqual([])
})

test("case 42: kind filters, a wrong or empty value is refused, an unknown parameter ignored", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const id = await create(api, "vm")

  expect(await ids(api, "?kind=Standby&foo=1&foo=")).toEqual([id])
  expect(await ids(api, "?kind=Stopped")).toEqual([])
  expect(await queryError(api, "?kind=x")).toBe(
    'parameter "kind" in query has an error: value is not one of the allowed values ["Standby","Stopped"]',
  )
  for (const name of ["name", "kind", "source_instance_id", "status", "limit"])
    expect(await queryError(api, `?${name}=`)).toBe(
      `parameter "${name}" in query has an error: empty value is not allowed`,
    )
  for (const query of [
    "?limit=0",
    "?limit=x",
    "?limit=1e3",
    "?status=ready,x",
    "?tags=x",
    "?kind=Standby&kind=Stopped",
  ])
    await queryError(api, query)
})

test("case 43: tags are a subset match, with percent-encoded brackets and any legal key", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const both = await create(api, "vm", { tags: { team: "backend", env: "staging" } })
  await create(api, "vm", { tags: { team: "backend" } })
  const odd = await create(api, "vm", { tags: { "a b:c/d.e=f": "g h", "0": "zero", empty: "" } })

  expect(await ids(api, "?tags%5Bteam%5D=backend&tags%5Benv%5D=staging")).toEqual([both])
  expect(await ids(api, "?tags[team]=backend&tags[env]=staging")).toEqual([both])
  expect(await ids(api, `?tags[${encodeURIComponent("a b:c/d.e=f")}]=g%20h`)).toEqual([odd])
  expect(await ids(api, "?tags[0]=zero&tags[empty]=")).toEqual([odd])
  expect(await ids(api, "?tags[team]=Backend")).toEqual([])
  for (const query of ["?tags[__proto__]=x", "?tags[a%23]=x", "?tags[]=x", "?tags[a]=1&tags[a]=2"])
    await queryError(api, query)
})

test("cases 44 and 45: the source is a literal id, filters are ANDed, the name is exact", async () => {
  await using api = await testApi()
  const { id: vm } = await api.instance("vm")
  const { id: other } = await api.instance("other")
  const worker = asWorker(api)
  const nightly = await create(api, "vm", { name: "nightly", tags: { a: "1" } })
  await create(api, "other", { name: "nightly" })

  expect(await ids(api, "?source_instance_id=vm")).toEqual([])
  expect(await ids(api, `?source_instance_id=${vm}`)).toEqual([nightly])
  expect(await ids(api, `?source_instance_id=${vm}&name=nightly&tags[a]=1&kind=Standby`)).toEqual([nightly])
  expect(await ids(api, `?source_instance_id=${other}&tags[a]=1`)).toEqual([])
  for (const name of ["night", "Nightly", "%00", "a%", "%ff"])
    expect(await ids(api, `?name=${name}`)).toEqual([])
  for (const capture of [await worker.take(), await worker.take()]) await worker.captured(capture)
  const deleted = api.ask("DELETE", "/instances/vm")
  await worker.ended(await worker.take())
  expect((await deleted).status).toBe(204)
  expect(await ids(api, `?source_instance_id=${vm}`)).toEqual([nightly])
})

test("the list is newest first, and keeps failed ones back unless asked for", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const worker = asWorker(api)
  const failed = await create(api, "vm")
  await worker.failed(await worker.take(), { code: "hypervisor_failed", message: "no" })
  const first = await create(api, "vm")
  const second = await create(api, "vm")

  expect(await ids(api, "")).toEqual([second, first])
  expect(await ids(api, "?limit=1")).toEqual([second])
  expect(await ids(api, "?status=failed")).toEqual([failed])
  expect(await ids(api, "?status=failed,queued")).toEqual([second, first, failed])
  const { body } = await api.ask("GET", `/snapshots/${failed}`)
  expect([body.status, body.error, body.size_bytes]).toEqual([
    "failed",
    { code: "hypervisor_failed", message: "no" },
    0,
  ])
})

test("case 46: a snapshot is found by its exact id only", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const id = await create(api, "vm", { name: "nightly" })

  for (const key of [id.slice(0, 12), "nightly", `${id}a`, "%00", "a%2Fb%20c", id.toUpperCase()]) {
    const { status, body } = await api.ask("GET", `/snapshots/${key}`)
    expect([status, body]).toEqual([404, { code: "not_found", message: "snapshot not found" }])
  }
  expect((await api.ask("GET", "/snapshots/")).status).toBe(404)
  expect((await api.ask("GET", "/snapshots/%ff")).status).toBe(400)
})

test("case 47: DELETE is 204 without a body, and then everything is 404", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const worker = asWorker(api)
  const id = await create(api, "vm")
  const capture = await worker.take()

  const reply = await api.ask("DELETE", `/snapshots/${id}`)

  expect([reply.status, reply.text]).toEqual([204, ""])
  expect((await api.ask("DELETE", `/snapshots/${id}`)).status).toBe(404)
  expect((await api.ask("GET", `/snapshots/${id}`)).status).toBe(404)
  expect(await ids(api, "")).toEqual([])
  const operations = await api.db
    .selectFrom("operations")
    .select(["kind", "queue", "state"])
    .orderBy("arrival")
    .execute()
  expect(operations).toEqual([
    { kind: capture.kind, queue: "capture.h1", state: "cancelled" },
    { kind: "delete", queue: "compress.pool-of-h1", state: "queued" },
  ])
  const events = await api.db.selectFrom("events").select(["type", "data"]).orderBy("id").execute()
  expect(events.map(({ type }) => type)).toEqual(["snapshot.created", "snapshot.deleted"])
  expect(events[1]?.data).toMatchObject({ id, status: "queued" })
})

test("many deletes of one snapshot at the same time: one wins", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const id = await create(api, "vm")

  const replies = await Promise.all(Array.from({ length: 8 }, () => api.ask("DELETE", `/snapshots/${id}`)))

  expect(statuses(replies)).toEqual([204, ...Array.from({ length: 7 }, () => 404)])
})

test("cases 35 and 36: GET with Prefer: wait is held until the compression is final, and shows its sizes only then", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const worker = asWorker(api)
  const id = await create(api, "vm", { compression: { enabled: true } })
  const held = api.ask("GET", `/snapshots/${id}`, { headers: { prefer: "wait=20" } })
  await worker.captured(await worker.take(), { compress: true })
  const before = (await api.ask("GET", `/snapshots/${id}`)).body

  await worker.compressed(id)

  expect(before.compression_state).toBe("compressing")
  expect(before).not.toHaveProperty("compressed_size_bytes")
  const { status, body } = await held
  expect([status, body.compression_state]).toEqual([200, "compressed"])
  expect([body.compressed_size_bytes, body.uncompressed_size_bytes]).toEqual([10, 100])
})

test("a held GET of a snapshot that is deleted meanwhile is 404", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const id = await create(api, "vm")
  const held = api.ask("GET", `/snapshots/${id}`, { headers: { prefer: "wait=20" } })

  await api.ask("DELETE", `/snapshots/${id}`)

  expect((await held).status).toBe(404)
})
