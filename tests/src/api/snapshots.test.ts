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

test("a DELETE cancels the capture, asks for the files' removal and tells of it with the last state", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const worker = asWorker(api)
  const id = await create(api, "vm")
  const capture = await worker.take()

  expect((await api.ask("DELETE", `/snapshots/${id}`)).status).toBe(204)

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

test("GET with Prefer: wait is held until the compression is final, and shows its sizes only then", async () => {
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
