import { once } from "node:events"
import { request as send, type IncomingMessage } from "node:http"
import { afterEach, beforeEach, expect, test, vi } from "vitest"
import { testApi, token, type Ask, type Reply, type TestApi } from "./test-api.ts"

// However long the requests take, no time passes for the limits.
beforeEach(() => void vi.useFakeTimers({ toFake: ["performance"] }))
afterEach(() => void vi.useRealTimers())

const noLimits = { perAddress: 0, perCaller: 0, streamsPerCaller: 0 }

/** So many requests one after the other; their statuses. */
async function ask(api: TestApi, count: number, path: string, options: Ask): Promise<number[]> {
  const found: number[] = []
  for (let n = 0; n < count; n += 1) found.push((await api.ask("GET", path, options)).status)
  return found
}

test("a stranger who asks too often is told when to come again, and callers from its address are served", async () => {
  await using api = await testApi({ limits: { ...noLimits, perAddress: 1 } })
  const wrong = { claims: null, headers: { authorization: "Bearer wrong" } }

  expect(await ask(api, 4, "/spec.json", { claims: null })).toEqual([200, 200, 200, 200])
  expect(await ask(api, 6, "/snapshots", wrong)).toEqual([401, 401, 401, 401, 401, 401])
  for (const [path, options] of [
    ["/ready", { claims: null }],
    ["/docs", { claims: null }],
    ["/nope", { claims: null }],
    ["/snapshots", wrong],
    ["/snapshots", { claims: null, headers: { "x-forwarded-for": "192.0.2.1" } }],
  ] as const) {
    const { status, headers, body } = await api.ask("GET", path, options)
    expect([status, headers.get("retry-after"), body]).toEqual([
      429,
      "1",
      {
        code: "too_many_requests",
        message:
          "this address sends more than 1 requests a second without a valid token; send fewer, or send a token",
      },
    ])
  }
  vi.advanceTimersByTime(1_000)
  expect(await ask(api, 2, "/docs", { claims: null })).toEqual([200, 429])
  expect(await ask(api, 20, "/health", { claims: null })).not.toContain(429)
  expect(await ask(api, 20, "/snapshots", {})).not.toContain(429)
})

test("behind a trusted proxy each address has its own limit, and nothing that the client writes before it counts", async () => {
  await using api = await testApi({
    limits: { ...noLimits, perAddress: 1 },
    trustedProxies: ["127.0.0.0/8", "::1/128"],
  })
  const from = (address: string): Ask => ({ claims: null, headers: { "x-forwarded-for": address } })

  expect(await ask(api, 10, "/docs", from("192.0.2.1"))).not.toContain(429)
  expect(await ask(api, 1, "/docs", from("198.51.100.7, 192.0.2.1"))).toEqual([429])
  expect(await ask(api, 1, "/docs", from("192.0.2.2"))).toEqual([200])
})

test("a caller who asks too often is refused by any of its tokens, and others are served", async () => {
  await using api = await testApi({ limits: { ...noLimits, perCaller: 1 } })
  const as = (sub: string, jti: string): Ask => ({ claims: { sub, jti } })

  expect(await ask(api, 10, "/snapshots", as("one", "1"))).not.toContain(429)
  const { status, headers, body } = await api.ask("GET", "/snapshots", as("one", "2"))
  expect([status, headers.get("retry-after"), body.message]).toEqual([
    429,
    "1",
    "this caller sends more than 1 requests a second; send fewer, or raise CALLER_REQUESTS_PER_SECOND",
  ])
  expect(await ask(api, 1, "/snapshots", as("other", "1"))).toEqual([200])
})

test("a caller has so many event streams at a time, and one that it closes makes room", async () => {
  await using api = await testApi({ limits: { ...noLimits, streamsPerCaller: 2 } })
  const open = async (sub: string): Promise<{ status: number; close: () => void }> => {
    const request = send(`${api.api.url}/events/stream`, {
      headers: { authorization: `Bearer ${token({ sub })}` },
    }).end()
    const [answer] = (await once(request, "response")) as [IncomingMessage]
    request.on("error", () => {})
    answer.on("error", () => {}).resume()
    return { status: answer.statusCode ?? 0, close: () => request.destroy() }
  }

  const first = await open("one")
  const second = await open("one")
  expect([first.status, second.status]).toEqual([200, 200])
  const { status, headers, body } = await api.ask("GET", "/events/stream", { claims: { sub: "one" } })
  expect([status, headers.get("retry-after"), body.message]).toEqual([
    429,
    "5",
    "this caller has 2 event streams open; close one, or raise CALLER_STREAMS",
  ])
  const others = await open("other")
  expect(others.status).toBe(200)
  first.close()
  let third = await open("one")
  while (third.status === 429) third = await open("one")
  expect(third.status).toBe(200)
  for (const stream of [second, third, others]) stream.close()
})

test("readiness is judged once for all who ask within its time", async () => {
  await using api = await testApi({ readyCacheMs: 3_600_000 })
  const ready = (): Promise<Reply> => api.ask("GET", "/ready", { claims: null })

  const first = await ready()
  await api.host("h1")
  expect((await ready()).text).toBe(first.text)
})

test("a wrong token is refused before the body arrives", async () => {
  await using api = await testApi()
  const request = send(`${api.api.url}/instances`, {
    method: "POST",
    headers: { authorization: "Bearer wrong", "content-length": "1000", "content-type": "application/json" },
  })
  request.on("error", () => {})
  request.flushHeaders()

  const [answer] = (await once(request, "response")) as [IncomingMessage]
  expect(answer.statusCode).toBe(401)
  request.destroy()
})
