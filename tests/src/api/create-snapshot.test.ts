import { expect, test } from "vitest"
import { asWorker } from "./as-worker.ts"
import { statuses, testApi, type Ask, type Reply, type TestApi } from "./test-api.ts"

function create(api: TestApi, body: unknown, ask: Ask = {}): Promise<Reply> {
  return api.ask("POST", "/instances/vm/snapshots", { ...ask, body })
}

const kind = "Standby"

test("cases 19, 29 and 30: unknown fields are ignored, required ones are there, optional ones are left out", async () => {
  await using api = await testApi()
  const instance = await api.instance("vm")

  const { status, body, headers } = await create(api, { kind, colour: "blue" })

  expect(status).toBe(202)
  expect(body).toEqual({
    id: expect.stringMatching(/^[a-z][a-z0-9]{23}$/),
    kind,
    source_instance_id: instance.id,
    source_instance_name: "vm",
    source_hypervisor: "qemu",
    created_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
    size_bytes: 0,
    compression_state: "none",
    status: "queued",
  })
  expect(headers.get("location")).toBe(`/snapshots/${body.id}`)
  expect((await api.ask("GET", `/snapshots/${body.id}`)).body).toEqual(body)
})

test("cases 20 and 21: an instance is found by id, name or unique prefix", async () => {
  await using api = await testApi()
  const instance = await api.instance("vm")
  const ask = (key: string): Promise<Reply> =>
    api.ask("POST", `/instances/${key}/snapshots`, { body: { kind } })

  expect((await ask("nobody")).body).toEqual({ code: "not_found", message: "resource not found" })
  for (const key of [instance.id, "vm", instance.id.slice(0, 12)])
    expect((await ask(key)).body.source_instance_id).toBe(instance.id)
  // Enough instances for two ids with the same first letter.
  for (let n = 0; n < 26; n++) await api.instance(`other-${n}`)
  const listed: { id: string }[] = (await api.ask("GET", "/instances")).body
  const byLetter = Map.groupBy(listed, ({ id }) => id.slice(0, 1))
  const letter = [...byLetter.entries()].find(([, rows]) => rows.length > 1)?.[0] ?? ""
  const ambiguous = await ask(letter)
  expect([ambiguous.status, ambiguous.body]).toEqual([
    409,
    { code: "ambiguous", message: "multiple resources match, use full ID" },
  ])
})

test("cases 23 and 24: a state that the kind does not allow is a conflict that clients do not repeat", async () => {
  await using api = await testApi()
  await api.instance("stopped", { state: "Stopped" })
  await api.instance("starting", { state: "Initializing" })
  await api.instance("running")
  const ask = (name: string, kind: string): Promise<Reply> =>
    api.ask("POST", `/instances/${name}/snapshots`, { body: { kind } })

  const standby = await ask("stopped", "Standby")
  expect([standby.status, standby.body.code, standby.headers.get("x-should-retry")]).toEqual([
    409,
    "conflict",
    "false",
  ])
  expect(standby.body.message).toBe(
    "invalid state transition: standby snapshot requires source in Running or Standby, got Stopped",
  )
  expect((await ask("running", "Stopped")).body.message).toContain("requires source in Stopped, got Running")
  for (const kind of ["Standby", "Stopped"]) expect((await ask("starting", kind)).status).toBe(409)
})

test("cases 25 and 26: a name is unique per instance among living snapshots, and none is no name", async () => {
  await using api = await testApi()
  await api.instance("vm")
  await api.instance("other")

  const first = await create(api, { kind, name: "nightly" })
  const second = await create(api, { kind, name: "nightly" })
  expect([second.status, second.body.code, second.headers.get("x-should-retry")]).toEqual([
    409,
    "conflict",
    "false",
  ])
  expect(second.body.message).toContain("already exists")
  expect(
    (await api.ask("POST", "/instances/other/snapshots", { body: { kind, name: "nightly" } })).status,
  ).toBe(202)
  await api.ask("DELETE", `/snapshots/${first.body.id}`)
  expect((await create(api, { kind, name: "nightly" })).status).toBe(202)
  for (let n = 0; n < 2; n++) expect((await create(api, { kind })).status).toBe(202)
})

test("two creates with one name at the same time make one snapshot", async () => {
  await using api = await testApi()
  await api.instance("vm")

  const replies = await Promise.all(Array.from({ length: 8 }, () => create(api, { kind, name: "twin" })))

  expect(statuses(replies)).toEqual([202, ...Array.from({ length: 7 }, () => 409)])
})

test("cases 31 to 34: compression is the request's, else the instance's, else the server's, with defaults filled in", async () => {
  await using api = await testApi({ compression: { enabled: true, algorithm: "lz4" } })
  await api.instance("vm")
  await api.instance("with-policy", { policy: { compression: { enabled: true, level: 7 } } })
  const compression = async (name: string, block?: object): Promise<object | undefined> =>
    (
      await api.ask("POST", `/instances/${name}/snapshots`, {
        body: { kind, ...(block && { compression: block }) },
      })
    ).body.compression

  expect(await compression("vm", { enabled: true })).toEqual({ enabled: true, algorithm: "zstd", level: 1 })
  expect(await compression("vm", { enabled: true, algorithm: "lz4" })).toEqual({
    enabled: true,
    algorithm: "lz4",
    level: 0,
  })
  expect(await compression("with-policy")).toEqual({ enabled: true, algorithm: "zstd", level: 7 })
  expect(await compression("vm")).toEqual({ enabled: true, algorithm: "lz4", level: 0 })
  expect(await compression("with-policy", { enabled: false })).toBeUndefined()
})

test("Prefer: wait holds a create until the capture is durable, then it is 201", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const worker = asWorker(api)

  const reply = create(api, { kind }, { headers: { prefer: "wait=20" } })
  await worker.captured(await worker.take())

  const { status, body, headers } = await reply
  expect([status, body.status, body.size_bytes]).toEqual([201, "ready", 100])
  expect(headers.get("location")).toBe(`/snapshots/${body.id}`)
})

test("a wait that runs out is 202, and wait=0 and respond-async do not wait", async () => {
  await using api = await testApi()
  await api.instance("vm")

  for (const prefer of ["wait=1", "wait=0", "respond-async", "nonsense", "wait=x"])
    expect((await create(api, { kind }, { headers: { prefer } })).status).toBe(202)
})

test("a capture that fails while its create is held is an error that clients do not repeat", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const worker = asWorker(api)
  const failures = [
    { code: "insufficient_storage", answer: [409, "insufficient_resources"] },
    { code: "storage_failed", answer: [500, "internal_error"] },
  ] as const

  for (const { code, answer } of failures) {
    const reply = create(api, { kind }, { headers: { prefer: "wait=20" } })
    await worker.failed(await worker.take(), { code, message: "the reason; what to do" })
    const { status, body, headers } = await reply
    expect([status, body.code]).toEqual(answer)
    expect(body.message).toBe("the reason; what to do")
    expect(headers.get("x-should-retry")).toBe("false")
  }
})
