import { afterAll, beforeAll, expect, test } from "vitest"
import { testApi, type Ask, type Reply, type TestApi } from "../api/test-api.ts"

// One for all: no worker takes up what is created here.
let api: TestApi
beforeAll(async () => {
  api = await testApi()
  await api.instance("vm")
  await api.instance("stopped", { state: "Stopped" })
})
afterAll(() => api[Symbol.asyncDispose]())

function create(body: unknown, ask: Ask = {}): Promise<Reply> {
  return api.ask("POST", "/instances/vm/snapshots", { ...ask, body })
}

async function refused(body: unknown, status = 400): Promise<{ code: string; message: string }> {
  const reply = await create(body)
  expect(reply.status, `for ${JSON.stringify(body).slice(0, 200)}`).toBe(status)
  expect(reply.headers.get("content-type")).toContain("application/json")
  expect(Object.keys(reply.body)).toEqual(["code", "message"])
  return reply.body
}

const kind = "Standby"
const schemaError = "request body has an error: "

test("case 10: a body without a kind is a schema error in valid JSON", async () => {
  expect(await refused({})).toEqual({
    code: "Bad Request",
    message: `${schemaError}Error at "/kind": property "kind" is missing`,
  })
  for (const body of [[], 1, null, "text", true])
    expect((await refused(JSON.stringify(body))).message).toBe(
      `${schemaError}Error at "/": value must be an object`,
    )
})

test("case 11: a kind in lower case is an unknown one", async () => {
  expect(await refused({ kind: "standby" })).toEqual({
    code: "Bad Request",
    message: `${schemaError}Error at "/kind": value is not one of the allowed values ["Standby","Stopped"]`,
  })
})

test("case 12: no body, broken JSON, another content type and a body over 64 KiB are refused", async () => {
  expect(await refused("")).toEqual({
    code: "Bad Request",
    message: "request body has an error: value is required but missing",
  })
  const none = await api.ask("POST", "/instances/vm/snapshots")
  expect([none.status, none.body.message]).toEqual([
    400,
    "request body has an error: value is required but missing",
  ])
  for (const broken of ["{", "{kind:1}", '{"a":"\u0001"}'])
    expect((await refused(broken)).message).toMatch(
      /^request body has an error: failed to decode request body: /,
    )
  const text = await create({ kind }, { headers: { "content-type": "text/plain" } })
  expect([text.status, text.body.message]).toEqual([
    400,
    'request body has an error: header Content-Type has unexpected value "text/plain"',
  ])
  for (const headers of [
    { "content-encoding": "gzip" },
    { "content-type": "application/json; charset=nonsense" },
  ])
    expect((await create({ kind }, { headers })).body.code).toBe("Bad Request")
  const large = await create({ kind, padding: "x".repeat(64 * 1024) })
  expect([large.status, large.body.code]).toEqual([413, "Payload Too Large"])
})

test("case 13: a name is 1 to 63 lower-case letters, digits and inner dashes", async () => {
  for (const name of ["Abc", "-a", "a-", "a_b", "x".repeat(64), "", 1, null, "a\0"])
    expect((await refused({ kind, name })).code).toBe("Bad Request")
  for (const name of ["a", "x".repeat(63), "a--b", "0"])
    expect((await create({ kind, name })).body.name).toBe(name)
})

test("case 14: tags are at most 50, of short keys and values in the allowed characters", async () => {
  const many = (count: number): object =>
    Object.fromEntries(Array.from({ length: count }, (_, n) => [`k${n}`, "v"]))
  const bad = [
    many(51),
    { "": "v" },
    { ["k".repeat(129)]: "v" },
    { k: "v".repeat(257) },
    { "k#": "v" },
    { k: "#" },
  ]

  for (const tags of [...bad, { k: 1 }, { k: null }, [], "k=v", { "k\0": "v" }])
    expect((await refused({ kind, tags })).code).toBe("Bad Request")
  expect((await refused('{"kind":"Standby","tags":{"__proto__":"x"}}')).message).toContain("__proto__")
  for (const tags of [many(50), { k: "" }, { constructor: "x", "a b_c.d:e/f=g+h@i-j": "1" }])
    expect((await create({ kind, tags })).body.tags).toEqual(tags)
})

test("case 15: the shape of the compression block is the schema's", async () => {
  const bad = [{}, { enabled: true, level: 20 }, { enabled: true, level: -1 }, { enabled: true, level: 1.5 }]

  for (const compression of [
    ...bad,
    { enabled: true, algorithm: "gzip" },
    { enabled: true, algorithm: "ZSTD" },
    true,
  ])
    expect((await refused({ kind, compression })).code).toBe("Bad Request")
  expect((await refused({ kind, compression: { enabled: true, level: 20 } })).message).toBe(
    `${schemaError}Error at "/compression/level": number must be at most 19`,
  )
})

test("case 16: level 0 of zstd is the handler's error", async () => {
  expect(await refused({ kind, compression: { enabled: true, level: 0 } })).toEqual({
    code: "invalid_snapshot_compression",
    message: "level must be between 1 and 19 for zstd, got 0",
  })
})

test("case 17: lz4 has levels 0 to 9", async () => {
  expect(await refused({ kind, compression: { enabled: true, algorithm: "lz4", level: 10 } })).toEqual({
    code: "invalid_snapshot_compression",
    message: "level must be between 0 and 9 for lz4, got 10",
  })
  for (const level of [0, 9])
    expect((await create({ kind, compression: { enabled: true, algorithm: "lz4", level } })).status).toBe(202)
})

test("case 18: compression of a Stopped snapshot is refused, switched off it is no reason", async () => {
  const ask = (enabled: boolean): Promise<Reply> =>
    api.ask("POST", "/instances/stopped/snapshots", { body: { kind: "Stopped", compression: { enabled } } })

  const on = await ask(true)
  expect([on.status, on.body]).toEqual([
    400,
    { code: "invalid_request", message: "compression is only supported for standby snapshots" },
  ])
  expect((await ask(false)).status).toBe(202)
})

test("case 19: a body's unknown field is ignored", async () => {
  const { status, body } = await create({ kind, colour: "blue" })

  expect(status).toBe(202)
  expect(body).not.toHaveProperty("colour")
})
