import { expect, test } from "vitest"
import { testApi, type Ask, type Reply, type TestApi } from "./test-api.ts"

/** An answer of every sort: with a body, refused before and after the token, not found, and at fault. */
async function answersOfEverySort(api: TestApi, ask: Ask = {}): Promise<Reply[]> {
  const snapshot = { ...ask, body: { kind: "Standby" } }
  const asked = [
    ["GET", "/health", ask],
    ["GET", "/snapshots", ask],
    ["POST", "/instances/vm/snapshots", snapshot],
    ["POST", "/instances/vm/snapshots", { ...ask, body: "{" }],
    ["POST", "/instances/vm/snapshots", { ...ask, body: `{"kind":"${"x".repeat(1024 * 1024)}"}` }],
    ["GET", "/snapshots/nope", ask],
    ["GET", "/snapshots", { ...ask, claims: null }],
    ["GET", "/snapshots", { ...ask, claims: { permissions: [] } }],
    ["GET", "/nope", ask],
    ["PATCH", "/snapshots", ask],
  ] as const
  return Promise.all(asked.map(([method, path, each]) => api.ask(method, path, each)))
}

const everyStatus = [200, 200, 202, 400, 413, 404, 401, 403, 404, 405]

test("every answer with a body is JSON in UTF-8, and no browser may guess otherwise", async () => {
  await using api = await testApi()
  await api.instance("vm")

  const replies = await answersOfEverySort(api)

  expect(replies.map(({ status }) => status)).toEqual(everyStatus)
  for (const { headers, text } of replies) {
    expect(headers.get("content-type"), `for ${text}`).toBe("application/json; charset=utf-8")
    expect(headers.get("x-content-type-options"), `for ${text}`).toBe("nosniff")
  }
})

test("no answer lets a page of another origin read it, preflight included", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const headers = { origin: "https://elsewhere.example" }
  const preflight = { ...headers, "access-control-request-method": "DELETE" }

  const replies = [
    ...(await answersOfEverySort(api, { headers })),
    await api.ask("OPTIONS", "/snapshots", { headers: preflight }),
  ]

  const allowing = replies.flatMap((reply) =>
    [...reply.headers.keys()].filter((name) => name.startsWith("access-control")),
  )
  expect(allowing).toEqual([])
})

test("no answer may be framed or run anything from elsewhere, and none names what made it", async () => {
  await using api = await testApi()
  await api.instance("vm")

  for (const { headers, text } of await answersOfEverySort(api)) {
    expect(headers.get("content-security-policy"), `for ${text}`).toContain("script-src 'self';")
    expect(headers.get("x-frame-options"), `for ${text}`).toBe("SAMEORIGIN")
    expect(headers.has("x-powered-by"), `for ${text}`).toBe(false)
  }
})

test("every answer carries the id that the request came with", async () => {
  await using api = await testApi()
  await api.instance("vm")

  const replies = await answersOfEverySort(api, { headers: { "x-request-id": "order-66" } })

  expect(new Set(replies.map(({ headers }) => headers.get("x-request-id")))).toEqual(new Set(["order-66"]))
})
