import { expect, test } from "vitest"
import { asWorker } from "./as-worker.ts"
import { testApi, type Reply, type TestApi } from "./test-api.ts"

function create(api: TestApi, headers: Record<string, string> = {}): Promise<Reply> {
  return api.ask("POST", "/instances/vm/snapshots", { body: { kind: "Standby" }, headers })
}

test("an answer is the point in time: it comes when the snapshot is captured", async () => {
  await using api = await testApi({ snapshotCreate: "sync" })
  await api.instance("vm")
  const worker = asWorker(api)

  const reply = create(api)
  await worker.captured(await worker.take())

  const { status, body, headers } = await reply
  expect([status, body.status]).toEqual([201, "ready"])
  expect(headers.get("preference-applied")).toBeNull()
})

test("a wait that runs out is 504 to be repeated, and the client's retry joins the same snapshot", async () => {
  await using api = await testApi({ snapshotCreate: "sync" })
  await api.instance("vm")
  const worker = asWorker(api)

  const late = await create(api, { prefer: "wait=1", "x-stainless-retry-count": "0" })
  const operation = await worker.take()
  const retry = create(api, { "x-stainless-retry-count": "1" })
  await worker.captured(operation)

  expect([late.status, late.body.code, late.headers.get("x-should-retry")]).toEqual([504, "timeout", "true"])
  expect(late.headers.get("preference-applied")).toBe("wait=1")
  const { status, body } = await retry
  expect([status, body.id]).toEqual([201, operation.snapshotId])
})

test("whoever asks not to wait gets 202", async () => {
  await using api = await testApi({ snapshotCreate: "sync" })
  await api.instance("vm")

  const { status, headers } = await create(api, { prefer: "respond-async" })
  expect([status, headers.get("preference-applied")]).toEqual([202, "respond-async"])
})

test("work on an instance that takes too long is 504 and not to be repeated", async () => {
  await using api = await testApi({ snapshotCreate: "sync" })
  await api.instance("vm")

  const { status, body, headers } = await api.ask("POST", "/instances/vm/stop", {
    headers: { prefer: "wait=1" },
  })
  expect([status, body.code, headers.get("x-should-retry")]).toEqual([504, "timeout", "false"])
})
