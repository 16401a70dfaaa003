import { defaultCaptureLimits, type CaptureLimits } from "@stillframe/api/snapshots/capture-limits"
import { expect, test } from "vitest"
import { statuses, testApi, type Reply, type TestApi } from "./test-api.ts"

interface Asked {
  readonly sub?: string
  readonly headers?: Record<string, string>
}

function create(api: TestApi, instance: string, { sub = "a", headers = {} }: Asked = {}): Promise<Reply> {
  const claims = { sub, permissions: ["snapshot:write"] }
  return api.ask("POST", `/instances/${instance}/snapshots`, { body: { kind: "Standby" }, claims, headers })
}

async function limitedApi(limits: Partial<CaptureLimits>): Promise<TestApi> {
  const api = await testApi({ openCaptures: { ...defaultCaptureLimits, ...limits } })
  await api.instance("one")
  await api.instance("other")
  return api
}

const beyond: readonly [keyof CaptureLimits, string, string, Asked][] = [
  ["perInstance", "one", "other", {}],
  ["perCaller", "other", "one", { sub: "b" }],
]

test.each(beyond)(
  "a create beyond the limit %s is 429 with retry-after, and others go on",
  async (limit, refused, allowed, asked) => {
    await using api = await limitedApi({ [limit]: 2 })
    await create(api, "one")
    await create(api, "one")

    const [beyondIt, others] = [await create(api, refused), await create(api, allowed, asked)]

    expect(beyondIt).toMatchObject({ status: 429, body: { code: "too_many_requests" } })
    expect(beyondIt.headers.get("retry-after")).toMatch(/^\d+$/)
    expect((beyondIt.body as { message: string }).message).toContain("OPEN_CAPTURES_PER_")
    expect(others.status).toBe(202)
  },
)

test("a host's limit counts all callers and all of its instances", async () => {
  await using api = await limitedApi({ perHost: 2 })

  const replies = [await create(api, "one"), await create(api, "other", { sub: "b" })]
  replies.push(await create(api, "one", { sub: "c" }))

  expect(statuses(replies)).toEqual([202, 202, 429])
})

test("creates at the same moment do not exceed a limit together", async () => {
  await using api = await limitedApi({ perInstance: 3 })

  const replies = await Promise.all(Array.from({ length: 12 }, () => create(api, "one")))

  expect(replies.filter(({ status }) => status === 202)).toHaveLength(3)
})

test("a capture that ends, or is deleted, makes room for another", async () => {
  await using api = await limitedApi({ perInstance: 1 })
  const { id } = (await create(api, "one")).body as { id: string }
  expect((await create(api, "one")).status).toBe(429)

  await api.ask("DELETE", `/snapshots/${id}`)

  await expect.poll(async () => (await create(api, "one")).status, { timeout: 5_000 }).toBe(202)
})

test("at the limit a request that is repeated with its key gets what it made", async () => {
  await using api = await limitedApi({ perInstance: 1 })
  const headers = { "idempotency-key": "k" }

  const [first, again] = [await create(api, "one", { headers }), await create(api, "one", { headers })]

  expect([again.status, again.body]).toEqual([202, first.body])
})
