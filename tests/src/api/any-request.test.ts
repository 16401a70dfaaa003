import fc from "fast-check"
import { afterAll, beforeAll, expect, test } from "vitest"
import { bodyFor, hostileText, type Schema } from "./hostile.ts"
import { testApi, token, type TestApi } from "./test-api.ts"

interface Operation {
  readonly parameters: readonly { readonly in?: string; readonly name?: string }[]
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: Schema }>> }
}

interface Asked {
  readonly method: string
  readonly url: string
  readonly body: string | undefined
  readonly headers: Readonly<Record<string, string>>
}

let api: TestApi
let routes: { path: string; method: string; operation: Operation }[]
let schemas: Readonly<Record<string, Schema>>
let ids: readonly string[]
beforeAll(async () => {
  api = await testApi()
  const { id } = await api.instance("vm")
  await api.instance("standby", { state: "Standby" })
  await api.instance("stopped", { state: "Stopped" })
  const { body: webhook } = await api.ask("POST", "/webhooks", { body: { url: "https://example.com/" } })
  const { body: snapshot } = await api.ask("POST", "/instances/vm/snapshots", { body: { kind: "Standby" } })
  ids = ["vm", "standby", "stopped", id, webhook.id, snapshot.id, "1"]
  const { body: document } = await api.ask("GET", "/spec.json", { claims: null })
  schemas = document.components.schemas
  routes = Object.entries<Record<string, Operation>>(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  )
})
afterAll(() => api[Symbol.asyncDispose]())

test("no body, query, path or header makes any route fail", async () => {
  const asked = fc
    .integer({ min: 0, max: routes.length - 1 })
    .chain((index) => requestTo(routes[index] ?? routes[0]!))

  await fc.assert(
    fc.asyncProperty(asked, async (request) => {
      expect(await faultOf(request)).toBeUndefined()
    }),
    { numRuns: 500 },
  )
})

test("no id that is a NUL character makes any route fail", async () => {
  for (const { path, method } of routes) {
    if (!path.includes("{")) continue
    const url = path.replaceAll(/\{\w+\}/g, "%00")
    expect(await faultOf({ method: method.toUpperCase(), url, body: undefined, headers: {} })).toBeUndefined()
  }
})

test("nothing that was sent is to be seen in the prototypes of the process", () => {
  expect(Object.keys(Object.prototype)).toEqual([])
  expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined()
})

function requestTo({ path, method, operation }: (typeof routes)[number]): fc.Arbitrary<Asked> {
  const schema = operation.requestBody?.content["application/json"]?.schema
  const body =
    schema === undefined
      ? fc.constantFrom(undefined, "{}")
      : bodyFor(schema, (pointer) => schemas[pointer.split("/").at(-1) ?? ""] ?? {})
  return fc
    .record({
      segments: fc.array(segment, { minLength: 2, maxLength: 2 }),
      query: queryOf(operation),
      body,
      headers,
    })
    .map((parts) => {
      let at = 0
      const filled = path.replaceAll(/\{\w+\}/g, () => parts.segments[at++] ?? "x")
      const wait = path.endsWith("/wait") ? "&timeout=1ms" : ""
      return { ...parts, method: method.toUpperCase(), url: `${filled}?${parts.query}${wait}` }
    })
}

const segment = fc.oneof(
  // A query has its own list of ids, which is made later than this.
  fc.nat(6).map((index) => `{${index}}`),
  hostileText.map((text) => encodeURIComponent(text.toWellFormed()).slice(0, 2_000)),
  fc.constantFrom("%00", "%ff", "%", "a%2fb"),
)

function queryOf({ parameters }: Operation): fc.Arbitrary<string> {
  const names = parameters.flatMap(({ in: place, name }) => (place === "query" && name ? [name] : []))
  const name = fc.oneof(
    fc.constantFrom("x", "tags[a]", "tags[__proto__]", "tags", "cursor", "limit", ...names),
    hostileText.map((text) => encodeURIComponent(text.toWellFormed())),
  )
  const value = fc.oneof(
    hostileText.map((text) => encodeURIComponent(text.toWellFormed())),
    fc.constantFrom("1e3", "%ff", "%00", "a,b", "true", "1", ...cursors),
  )
  return fc
    .array(fc.tuple(name, value), { maxLength: 4 })
    .map((pairs) => pairs.map(([key, text]) => `${key}=${text}`.slice(0, 2_000)).join("&"))
}

/** In the form that a list gives them, with what no list would give. */
const cursors = [
  ["2026-01-01T00:00:00Z", "a".repeat(24)],
  [`2026-01-01T00:00:00.${"1".repeat(300)}Z`, "a"],
  ["0000-01-01T00:00:00Z", "a"],
  ["9999-12-31T23:59:60Z", "a"],
  ["2026-01-01T00:00:00Z", "\0"],
  [{}, []],
].map((position) => Buffer.from(JSON.stringify(position)).toString("base64url"))

const visible = fc.stringMatching(/^[\x20-\x7e]{0,60}$/)
const headers = fc
  .record(
    {
      "idempotency-key": fc.oneof(visible, fc.constantFrom("a", "b", "k".repeat(300))),
      "x-request-id": visible,
      "x-stainless-retry-count": fc.constantFrom("0", "1", "-1", "99999", "NaN"),
      "last-event-id": fc.oneof(visible, fc.constantFrom("0", "9".repeat(300), "-1")),
      "if-none-match": fc.constantFrom("*", '"a"'),
      "content-type": fc.constantFrom("application/json", "text/plain", "application/json; charset=utf-16"),
      "content-encoding": fc.constantFrom("identity", "gzip", "x"),
      range: fc.constant("bytes=0-1"),
    },
    { requiredKeys: [] },
  )
  .map((given) => given as Record<string, string>)

/** The fault of an answer, if it has one. 501, 503 and 504 are answers by rule. */
async function faultOf({ method, url, body, headers }: Asked): Promise<string | undefined> {
  const path = url.replaceAll(/\{(\d)\}/g, (_match, index: string) => ids[Number(index)] ?? "x")
  const gone = new AbortController()
  const response = await fetch(`${api.api.url}${path}`, {
    method,
    signal: gone.signal,
    headers: {
      authorization: `Bearer ${token({ sub: "tester" })}`,
      prefer: "respond-async",
      "content-type": "application/json",
      ...headers,
    },
    ...(body !== undefined && method !== "GET" && { body }),
  })
  const { status } = response
  const shown = `${status} ${method} ${path.slice(0, 300)} ${body?.slice(0, 300)}`
  // A stream has no end of its own.
  if (response.headers.get("content-type")?.startsWith("text/event-stream") === true) {
    gone.abort()
    return undefined
  }
  const text = await response.text()
  if (status === 304 || (status >= 500 && ![501, 503, 504].includes(status))) return `${shown}: ${text}`
  // `..` is resolved by whoever sends it, and leads to the page.
  if (response.headers.get("content-type")?.startsWith("text/html") === true) return undefined
  if (status === 204) return text === "" ? undefined : shown
  const answer: { code?: unknown; message?: unknown } = JSON.parse(text)
  if (status < 400) return undefined
  const proper = typeof answer.code === "string" && typeof answer.message === "string"
  return proper && !/\\n +at |node_modules/.test(text) ? undefined : `no proper error: ${shown}: ${text}`
}
