import { expect, test } from "vitest"
import { asWorker } from "./as-worker.ts"
import { statuses, testApi, type Ask, type Reply, type TestApi } from "./test-api.ts"

function create(api: TestApi, body: unknown, ask: Ask = {}): Promise<Reply> {
  return api.ask("POST", "/instances/vm/snapshots", { ...ask, body })
}

const kind = "Standby"

test("two creates with one name at the same time make one snapshot", async () => {
  await using api = await testApi()
  await api.instance("vm")

  const replies = await Promise.all(Array.from({ length: 8 }, () => create(api, { kind, name: "twin" })))

  expect(statuses(replies)).toEqual([202, ...Array.from({ length: 7 }, () => 409)])
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
