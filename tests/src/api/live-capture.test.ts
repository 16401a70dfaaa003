import { expect, test } from "vitest"
import { asWorker } from "./as-worker.ts"
import { testApi, type Ask, type Reply, type TestApi } from "./test-api.ts"

function create(api: TestApi, body: object, ask: Ask = {}): Promise<Reply> {
  return api.ask("POST", "/instances/vm/snapshots", { ...ask, body: { kind: "Standby", ...body } })
}

async function hostThatOffersIt(state: "Running" | "Standby" | "Stopped" = "Running"): Promise<TestApi> {
  const api = await testApi()
  await api.instance("vm", { state })
  await api.host("h1", { live_capture: true })
  return api
}

test("a snapshot says how it was to be captured, paused where nothing was asked", async () => {
  await using api = await hostThatOffersIt()

  const live = await create(api, { capture: "live" })
  const replies = [live, await create(api, { capture: "paused" }), await create(api, {})]

  expect(replies.map(({ status, body }) => [status, body.capture])).toEqual([
    [202, "live"],
    [202, "paused"],
    [202, "paused"],
  ])
  expect((await api.ask("GET", `/snapshots/${live.body.id}`)).body.capture).toBe("live")
  const listed = (await api.ask("GET", "/snapshots")).body as { capture: string }[]
  expect(listed.map(({ capture }) => capture).toSorted()).toEqual(["live", "paused", "paused"])
  const [created] = (await api.db.selectFrom("events").select("data").orderBy("id").execute()).slice(-3)
  expect(created?.data).toMatchObject({ id: live.body.id, capture: "live" })
})

test("a host that does not offer it refuses a live capture with its reason and what to ask for instead", async () => {
  await using api = await testApi()
  await api.instance("vm")

  const { status, body, headers } = await create(api, { capture: "live" })

  expect([status, body.code, headers.get("x-should-retry")]).toEqual([501, "not_supported", "false"])
  expect(body.message).toBe(
    'host "h1" does not offer live captures of qemu: QEMU 7.2.22 can\'t do that; ask for "capture": "paused", or leave it out',
  )
  expect((await api.ask("GET", "/snapshots")).body).toEqual([])
})

test("a VM that someone else started is not captured live", async () => {
  await using api = await hostThatOffersIt()
  await api.db
    .updateTable("instances")
    .set({ attached: JSON.stringify({}) })
    .execute()

  const { status, body } = await create(api, { capture: "live" })

  expect([status, body.code]).toEqual([501, "not_supported"])
  expect(body.message).toContain("an attached VM cannot be captured live")
})

test("a Stopped snapshot has no memory to save live, and shows no way of saving it", async () => {
  await using api = await hostThatOffersIt("Stopped")

  const refused = await create(api, { kind: "Stopped", capture: "live" })
  const taken = await create(api, { kind: "Stopped", capture: "paused" })

  expect([refused.status, refused.body.code]).toEqual([400, "invalid_request"])
  expect([taken.status, taken.body.capture]).toEqual([202, undefined])
})

test("an instance in Standby has no pause, so its host is not asked what it can do", async () => {
  await using api = await testApi()
  await api.instance("vm", { state: "Standby" })

  expect((await create(api, { capture: "live" })).status).toBe(202)
})

test("anything else is no way of capturing", async () => {
  await using api = await hostThatOffersIt()

  for (const capture of ["Live", "", null, true]) expect((await create(api, { capture })).status).toBe(400)
})

test("the same key with another way of capturing is another request", async () => {
  await using api = await hostThatOffersIt()
  const keyed = { headers: { "idempotency-key": "k" } }

  const first = await create(api, { capture: "live" }, keyed)
  const same = await create(api, { capture: "live" }, keyed)
  const other = await create(api, {}, keyed)

  expect([first.status, same.body.id]).toEqual([202, first.body.id])
  expect([other.status, other.body.code]).toEqual([422, "idempotency_mismatch"])
})

test("a live capture that its host can no longer make fails with the reason", async () => {
  await using api = await hostThatOffersIt()
  const worker = asWorker(api)

  const reply = create(api, { capture: "live" }, { headers: { prefer: "wait=20" } })
  await worker.failed(await worker.take(), { code: "not_supported", message: "the reason; what to do" })

  const { status, body } = await reply
  expect([status, body.code, body.message]).toEqual([501, "not_supported", "the reason; what to do"])
})
