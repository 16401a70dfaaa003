import { connect } from "node:net"
import { text } from "node:stream/consumers"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { testApi, token, type Reply, type TestApi } from "./test-api.ts"

let api: TestApi
beforeAll(async () => {
  api = await testApi()
  await api.instance("vm")
})
afterAll(() => api[Symbol.asyncDispose]())

function create(body: unknown): Promise<Reply> {
  return api.ask("POST", "/instances/vm/snapshots", { body })
}

describe("a body is refused with 400, and says why, when it holds", () => {
  test.each([
    [
      "a NUL character",
      '{"kind":"Standby","name":"a\\u0000"}',
      '"/name": string must not hold a NUL character',
    ],
    ["a NUL character that is ignored", '{"kind":"Standby","x":["\\u0000"]}', '"/x/0"'],
    ["a NUL character in a name", '{"kind":"Standby","\\u0000":1}', "a key must not hold a NUL character"],
    [
      "half a character",
      '{"kind":"Standby","tags":{"a":"\\ud800"}}',
      '"/tags/a": string must be well-formed',
    ],
    ["the key __proto__", '{"kind":"Standby","tags":{"__proto__":"x"}}', "choose another"],
    ["that key, escaped", '{"kind":"Standby","tags":{"\\u005f_proto__":"x"}}', "choose another"],
  ])("%s", async (_what, body, reason) => {
    const reply = await create(body)
    expect([reply.status, reply.body]).toEqual([
      400,
      { code: "Bad Request", message: expect.stringContaining(reason) },
    ])
  })

  test("values without end below each other", async () => {
    const gpu = "[".repeat(100_000) + "]".repeat(100_000)
    const reply = await api.ask("POST", "/instances", { body: `{"name":"a","image":"demo","gpu":${gpu}}` })
    expect([reply.status, reply.body.message]).toEqual([400, expect.stringContaining("64 levels")])
  })
})

test.each([
  ["bytes that are not UTF-8", "application/json", Buffer.from('{"kind":"Standby","name":"\xe4"}', "latin1")],
  ["another encoding", "application/json; charset=utf-16le", Buffer.from('{"kind":"Standby"}', "utf16le")],
])("a body of %s is refused, not read as something else", async (_what, type, body) => {
  const response = await fetch(`${api.api.url}/instances/vm/snapshots`, {
    method: "POST",
    headers: { authorization: `Bearer ${token({ sub: "tester" })}`, "content-type": type },
    body,
  })
  expect([response.status, await response.json()]).toEqual([
    400,
    { code: "Bad Request", message: expect.stringMatching(/UTF-8|Content-Type/) },
  ])
})

test("UTF-8 is named or not, and quoted or not", async () => {
  for (const type of [
    "application/json",
    "application/json; charset=UTF-8",
    'application/json;charset="utf-8"',
  ]) {
    const { status } = await api.ask("POST", "/instances/vm/snapshots", {
      body: { kind: "Standby" },
      headers: { "content-type": type },
    })
    expect([type, status]).toEqual([type, 202])
  }
})

test("a cursor that no list has given is refused, whatever it is made of", async () => {
  const position = (...parts: unknown[]) => Buffer.from(JSON.stringify(parts)).toString("base64url")
  const cursors = [
    "9".repeat(300),
    position(`2026-01-01T00:00:00.${"1".repeat(300)}Z`, "a"),
    position("0000-01-01T00:00:00Z", "a"),
    position("2026-01-01T00:00:00Z", "\0"),
    position(),
  ]
  for (const path of ["/snapshots", "/instances", "/webhooks"])
    for (const cursor of cursors) {
      const { status, body } = await api.ask("GET", `${path}?cursor=${cursor}`)
      expect([path, status, body.message]).toEqual([path, 400, expect.stringContaining('"cursor"')])
    }
})

test.each(["/snapshots", "/spec.json", "/docs"])("a condition keeps nothing of %s back", async (path) => {
  const reply = await api.ask("GET", path, { headers: { "if-none-match": "*" } })
  expect([reply.status, reply.text === ""]).toEqual([200, false])
})

test("headers that are too large are answered 431", async () => {
  const socket = connect(Number(new URL(api.api.url).port), "127.0.0.1")
  socket.write(`GET /health HTTP/1.1\r\nhost: a\r\nx: ${"a".repeat(64 * 1024)}\r\n\r\n`)
  const answer = await text(socket)
  expect(answer).toMatch(/^HTTP\/1\.1 431 /)
  expect(answer).toContain("Request Header Fields Too Large")
})
