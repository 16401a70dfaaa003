import { describe, expect, test } from "vitest"
import { asWorker } from "./as-worker.ts"
import { testApi, type Ask, type Reply, type TestApi } from "./test-api.ts"

/** Shorter than an answer is held, and long enough for a machine that is busy. */
const patienceMs = 40_000

const lost = /^host "h1" has not been heard of since \d{4}-[^ ;]+Z/

/** A captured snapshot of the instance `vm` on `h1`. */
async function captured(api: TestApi, state: "Running" | "Stopped" = "Running"): Promise<string> {
  await api.instance("vm", { state })
  const worker = asWorker(api)
  const kind = state === "Running" ? "Standby" : "Stopped"
  const { body } = await api.ask("POST", "/instances/vm/snapshots", { body: { kind } })
  await worker.captured(await worker.take())
  return body.id
}

/** Fails when the call waits for what does not come. */
function askAtOnce(api: TestApi, method: string, path: string, ask: Ask = {}): Promise<Reply> {
  return api.ask(method, path, { ...ask, signal: AbortSignal.timeout(patienceMs) })
}

test("an instance whose host is not heard of is shown as Unknown, with the reason, everywhere", async () => {
  await using api = await testApi()
  const { id } = await api.instance("vm")
  await api.loseHost("h1")

  const shown = { id, state: "Unknown", state_error: expect.stringMatching(lost) }
  expect((await api.ask("GET", "/instances/vm")).body).toMatchObject(shown)
  expect((await api.ask("GET", "/instances")).body).toMatchObject([shown])
  expect((await api.ask("GET", "/instances?state=Unknown")).body).toMatchObject([shown])
  expect((await api.ask("GET", "/instances?state=Running")).body).toEqual([])
  expect((await api.ask("GET", "/instances/vm/wait?state=Unknown")).body).toEqual({
    state: "Unknown",
    state_error: expect.stringMatching(lost),
    timed_out: false,
  })
  expect((await api.ask("GET", "/instances/vm/wait?state=Running&timeout=1ms")).body).toMatchObject({
    state: "Unknown",
    timed_out: true,
  })

  await api.host("h1")
  const { body } = await api.ask("GET", "/instances/vm")
  expect(body).toMatchObject({ state: "Running" })
  expect(body).not.toHaveProperty("state_error")
})

test.each([
  ["POST", "/instances/vm/stop"],
  ["POST", "/instances/vm/start"],
  ["POST", "/instances/vm/standby"],
  ["POST", "/instances/vm/restore"],
  ["POST", "/instances/vm/snapshots"],
] as const)(
  "%s %s is refused at once while the host is not heard of, and leaves no work",
  async (method, path) => {
    await using api = await testApi()
    await api.instance("vm")
    await api.loseHost("h1")
    const body = path.endsWith("snapshots") ? { kind: "Standby" } : undefined

    const reply = await askAtOnce(api, method, path, { headers: { prefer: "wait=55" }, body })

    expect([reply.status, reply.body.code, reply.headers.get("x-should-retry")]).toEqual([
      503,
      "unavailable",
      "true",
    ])
    expect(reply.body.message).toMatch(lost)
    expect(await api.db.selectFrom("operations").select("id").execute()).toEqual([])
  },
)

test("a restore in place and a fork are refused at once while no host has the snapshot", async () => {
  await using api = await testApi()
  const id = await captured(api, "Stopped")
  await api.loseHost("h1")

  const restore = await askAtOnce(api, "POST", `/instances/vm/snapshots/${id}/restore`, { body: {} })
  const fork = await askAtOnce(api, "POST", `/snapshots/${id}/fork`, { body: { name: "copy" } })

  expect([restore.status, restore.body.code]).toEqual([503, "unavailable"])
  expect(restore.body.message).toMatch(lost)
  expect([fork.status, fork.body.code]).toEqual([503, "unavailable"])
  expect(fork.body.message).toMatch(/^no host of the storage pool "pool-of-h1" has been heard of since/)
  expect((await api.ask("GET", "/snapshots")).body).toMatchObject([
    { id, storage_error: expect.stringMatching(/^no host of the storage pool "pool-of-h1"/) },
  ])
})

test("a fork of a snapshot that is still to be captured is refused at once while its host is not heard of", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const { body } = await api.ask("POST", "/instances/vm/snapshots", { body: { kind: "Standby" } })
  await api.loseHost("h1")

  const fork = await askAtOnce(api, "POST", `/snapshots/${body.id}/fork`, { body: { name: "copy" } })

  expect([fork.status, fork.headers.get("x-should-retry")]).toEqual([503, "true"])
  expect(fork.body.message).toContain("is not captured yet")
})

test("another host of the pool takes over the forks of a host that is not heard of", async () => {
  await using api = await testApi()
  const id = await captured(api)
  await api.host("h2")
  await api.db.updateTable("hosts").set({ pool: "pool-of-h1" }).where("name", "=", "h2").execute()
  await api.loseHost("h1")

  const { status, body } = await api.ask("POST", `/snapshots/${id}/fork`, {
    body: { name: "copy" },
    headers: { prefer: "respond-async" },
  })

  expect([status, body.host]).toEqual([202, "h2"])
  const forks = api.db.selectFrom("operations").select("queue").where("kind", "=", "fork")
  expect(await forks.execute()).toEqual([{ queue: "capture.h2" }])
})

test("a launch on a host that is not heard of is refused as something to be tried again", async () => {
  await using api = await testApi()
  await api.host("h1")
  await api.host("h2")
  await api.loseHost("h1")

  const { status, body } = await api.ask("POST", "/instances", {
    body: { name: "vm", image: "demo", host: "h1" },
  })

  expect([status, body.code]).toEqual([503, "unavailable"])
  expect(body.message).toMatch(lost)
})

describe("DELETE of an instance whose host is not heard of", () => {
  test("is accepted at once, says so until the host is back, and is then carried out", async () => {
    await using api = await testApi()
    const { id } = await api.instance("vm")
    await api.loseHost("h1")
    const being = { id, state: "Unknown", state_error: expect.stringContaining("It is being deleted") }

    const reply = await askAtOnce(api, "DELETE", "/instances/vm")

    expect([reply.status, reply.headers.get("location")]).toEqual([202, `/instances/${id}`])
    expect(reply.body).toMatchObject(being)
    expect((await api.ask("GET", "/instances/vm")).body).toMatchObject(being)
    expect((await askAtOnce(api, "DELETE", "/instances/vm")).status).toBe(202)

    await api.host("h1")
    const worker = asWorker(api)
    const operation = await worker.take()
    expect(operation).toMatchObject({ kind: "delete", instanceId: id })
    await worker.ended(operation)
    expect((await api.ask("GET", "/instances/vm")).status).toBe(404)
  })

  test("in sync mode is no success: a 504 says that it goes on", async () => {
    await using api = await testApi({ snapshotCreate: "sync" })
    await api.instance("vm")
    await api.loseHost("h1")

    const { status, body, headers } = await askAtOnce(api, "DELETE", "/instances/vm")

    expect([status, body.code, headers.get("x-should-retry")]).toEqual([504, "timeout", "false"])
    expect(body.message).toContain("It is being deleted")
  })
})

test("an answer that is held ends when the host is lost meanwhile, and a DELETE is then no 204", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const worker = asWorker(api)
  const reply = askAtOnce(api, "DELETE", "/instances/vm")
  await worker.take()

  await api.loseHost("h1")

  const { status, body } = await reply
  expect([status, body.state]).toEqual([202, "Unknown"])
})

test("a held answer to a create ends when the host is lost before the capture", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const reply = askAtOnce(api, "POST", "/instances/vm/snapshots", {
    body: { kind: "Standby" },
    headers: { prefer: "wait=55" },
  })
  await asWorker(api).take()

  await api.loseHost("h1")

  const { status, body } = await reply
  expect([status, body.status]).toEqual([202, "queued"])
})

test.each(["verify", "compress"])(
  "%s is refused at once while the pool has no worker that is up",
  async (verb) => {
    await using api = await testApi()
    const id = await captured(api)
    await api.db
      .updateTable("compression_workers")
      .set({ heartbeat_at: new Date(0) })
      .execute()

    const reply = await askAtOnce(api, "POST", `/snapshots/${id}/${verb}`, { headers: { prefer: "wait=55" } })

    expect([reply.status, reply.body.code, reply.headers.get("x-should-retry")]).toEqual([
      503,
      "unavailable",
      "true",
    ])
    expect(reply.body.message).toMatch(/^no compression-worker of the storage pool "pool-of-h1"/)
    expect((await api.ask("GET", `/snapshots/${id}`)).body.compression_state).toBe("none")
  },
)

test("DELETE of a snapshot needs nobody to be up", async () => {
  await using api = await testApi()
  const id = await captured(api)
  await api.loseHost("h1")
  await api.db
    .updateTable("compression_workers")
    .set({ heartbeat_at: new Date(0) })
    .execute()

  expect((await api.ask("DELETE", `/snapshots/${id}`)).status).toBe(204)
  expect((await api.ask("GET", `/snapshots/${id}`)).status).toBe(404)
})
