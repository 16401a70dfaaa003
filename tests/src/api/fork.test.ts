import { expect, test } from "vitest"
import { asWorker } from "./as-worker.ts"
import { testApi, type Ask, type Reply, type TestApi } from "./test-api.ts"

async function snapshotOf(api: TestApi, instance: string): Promise<string> {
  const { body } = await api.ask("POST", `/instances/${instance}/snapshots`, { body: { kind: "Standby" } })
  return body.id
}

function fork(api: TestApi, id: string, body: unknown, ask: Ask = {}): Promise<Reply> {
  return api.ask("POST", `/snapshots/${id}/fork`, { ...ask, body })
}

test("a fork takes over what its source was, also when the source is gone", async () => {
  await using api = await testApi()
  const source = await api.instance("vm", { policy: { compression: { enabled: true } } })
  const worker = asWorker(api)
  const id = await snapshotOf(api, "vm")
  await worker.captured(await worker.take())
  const deleted = api.ask("DELETE", "/instances/vm")
  await worker.ended(await worker.take())
  expect((await deleted).status).toBe(204)

  const reply = fork(api, id, { name: "copy", tags: { a: "b" } })
  const operation = await worker.take()
  await worker.launched(operation)

  const { status, body, headers } = await reply
  expect(operation).toMatchObject({ kind: "fork", snapshotId: id })
  expect(status).toBe(201)
  expect(body).toMatchObject({ id: operation.instanceId, name: "copy", state: "Running", image: "heartbeat" })
  expect(body).toMatchObject({ expires_at: null, snapshot_policy: { compression: { enabled: true } } })
  expect(body.id).not.toBe(source.id)
  expect(headers.get("location")).toBe(`/instances/${body.id}`)
  const row = await api.db
    .selectFrom("instances")
    .selectAll()
    .where("id", "=", body.id)
    .executeTakeFirstOrThrow()
  expect(row).toMatchObject({ source_snapshot_id: id, launch: source.launch, memory_mib: 64, host: "h1" })
})

test("a fork that fails answers with the reason that its worker has found", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const worker = asWorker(api)
  const id = await snapshotOf(api, "vm")
  await worker.captured(await worker.take())

  const reply = fork(api, id, { name: "copy" })
  await worker.failed(await worker.take(), { code: "insufficient_resources", message: "no memory; end a VM" })

  const { status, body } = await reply
  expect([status, body]).toEqual([409, { code: "insufficient_resources", message: "no memory; end a VM" }])
})

test("a fork waits for a snapshot that is still to be captured", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const worker = asWorker(api)
  const id = await snapshotOf(api, "vm")

  const reply = fork(api, id, { name: "copy" })
  await worker.captured(await worker.take())
  await worker.launched(await worker.take())

  expect((await reply).status).toBe(201)
})

test("a fork that may not wait for the capture is told to come back", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const id = await snapshotOf(api, "vm")

  for (const prefer of ["respond-async", "wait=0", "wait=1"]) {
    const { status, body, headers } = await fork(api, id, { name: "copy" }, { headers: { prefer } })
    expect([status, body.code]).toEqual([409, "conflict"])
    expect([headers.get("x-should-retry"), headers.get("retry-after-ms")]).toEqual(["true", "1000"])
  }
})

test("a fork that may not wait for its VM answers 202", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const worker = asWorker(api)
  const id = await snapshotOf(api, "vm")
  await worker.captured(await worker.take())

  const { status, body } = await fork(api, id, { name: "copy" }, { headers: { prefer: "respond-async" } })

  expect([status, body.state]).toEqual([202, "Initializing"])
})

test("a failed snapshot can't be forked, nor one of Standby on another hypervisor", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const worker = asWorker(api)
  const ready = await snapshotOf(api, "vm")
  await worker.captured(await worker.take())
  const failed = await snapshotOf(api, "vm")
  await worker.failed(await worker.take(), { code: "hypervisor_failed", message: "QEMU said no" })

  const ofFailed = await fork(api, failed, { name: "copy" })
  expect([ofFailed.status, ofFailed.body.code, ofFailed.headers.get("x-should-retry")]).toEqual([
    409,
    "conflict",
    "false",
  ])
  expect(ofFailed.body.message).toContain("QEMU said no")
  const hypervisor = await fork(api, ready, { name: "copy", target_hypervisor: "qemu" })
  expect([hypervisor.status, hypervisor.body.code]).toEqual([400, "invalid_request"])
})
