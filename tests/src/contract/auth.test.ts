import { generateKeyPairSync, sign } from "node:crypto"
import { readFile } from "node:fs/promises"
import { afterAll, beforeAll, expect, test } from "vitest"
import { encode, testApi, token, type TestApi } from "../api/test-api.ts"

// One for all: what is refused changes nothing, and nothing here depends on what was allowed.
let api: TestApi
beforeAll(async () => {
  api = await testApi()
})
afterAll(() => api[Symbol.asyncDispose]())

async function refusal(authorization: string): Promise<unknown> {
  const { status, body } = await api.ask("GET", "/snapshots", { claims: null, headers: { authorization } })
  return { status, ...body }
}

const unauthorized = (reason: string): object => ({
  status: 401,
  code: "Unauthorized",
  message: `security requirements failed: ${reason}`,
})

test("case 1: no token is 401 with the contract's body", async () => {
  const { status, body } = await api.ask("GET", "/snapshots", { claims: null })

  expect(status).toBe(401)
  expect(body).toEqual({
    code: "Unauthorized",
    message: "security requirements failed: authorization header required",
  })
})

test("case 2: another scheme, or no token after the scheme, is a wrong format", async () => {
  for (const header of ["Basic x", "Bearer", "Bearer  ", "Bearer a b"])
    expect(await refusal(header)).toEqual(unauthorized("invalid authorization header format"))
})

test("case 3: a token of another secret, an expired one, alg none and RS256 are invalid", async () => {
  const now = Math.floor(Date.now() / 1_000)
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2_048 })
  const rs256 = `${encode({ alg: "RS256" })}.${encode({ sub: "x" })}`
  const tokens = [
    token({ sub: "x" }, { secret: "a secret of somebody else, 32 bytes" }),
    token({ exp: now - 60 }),
    token({ nbf: now + 60 }),
    token({ exp: "tomorrow" }),
    token([]),
    `${encode({ alg: "none" })}.${encode({ sub: "x" })}.`,
    `${rs256}.${sign("sha256", Buffer.from(rs256), privateKey).toString("base64url")}`,
    "not-a-token",
  ]

  for (const bad of tokens) expect(await refusal(`Bearer ${bad}`)).toEqual(unauthorized("invalid token"))
})

test("a token's times have 30 seconds of leeway, all three HMACs count, and the scheme's case does not", async () => {
  const now = Math.floor(Date.now() / 1_000)
  const tokens = [
    `Bearer ${token({ exp: now - 15 })}`,
    `Bearer ${token({ nbf: now + 15 })}`,
    `bearer ${token({}, { alg: "HS384" })}`,
    `BEARER ${token({}, { alg: "HS512" })}`,
  ]

  for (const authorization of tokens)
    expect((await api.ask("GET", "/snapshots", { claims: null, headers: { authorization } })).status).toBe(
      200,
    )
})

test("case 4: tokens of the registry and of builders are refused", async () => {
  for (const claims of [{ repos: [] }, { scope: "x" }, { build_id: null }, { sub: "builder-1" }])
    expect(await refusal(`Bearer ${token(claims)}`)).toEqual(unauthorized("invalid token type"))
})

test("case 5: a token allows what its permissions say, and the answer names the scope that misses", async () => {
  const claims = { permissions: ["snapshot:read"] }

  expect((await api.ask("GET", "/snapshots", { claims })).status).toBe(200)
  const create = await api.ask("POST", "/instances/x/snapshots", { claims, body: { kind: "Standby" } })
  expect(create.status).toBe(403)
  expect(create.body).toEqual({ code: "Forbidden", message: "missing required scope: snapshot:write" })
  const remove = await api.ask("DELETE", "/snapshots/x", { claims })
  expect(remove.body).toEqual({ code: "Forbidden", message: "missing required scope: snapshot:delete" })
})

const routes: [method: string, path: string, scope: string, body?: object][] = [
  ["POST", "/instances", "instance:write", { name: "a", image: "demo" }],
  ["GET", "/instances", "instance:read"],
  ["GET", "/instances/x", "instance:read"],
  ["DELETE", "/instances/x", "instance:write"],
  ["GET", "/instances/x/wait?state=Running", "instance:read"],
  ["POST", "/instances/x/stop", "instance:write"],
  ["POST", "/instances/x/start", "instance:write", {}],
  ["POST", "/instances/x/standby", "instance:write", {}],
  ["POST", "/instances/x/restore", "instance:write"],
  ["POST", "/instances/x/snapshots/y/restore", "snapshot:write", {}],
  ["POST", "/instances/x/snapshots", "snapshot:write", { kind: "Standby" }],
  ["GET", "/snapshots", "snapshot:read"],
  ["GET", "/snapshots/x", "snapshot:read"],
  ["DELETE", "/snapshots/x", "snapshot:delete"],
  ["POST", "/snapshots/x/fork", "snapshot:write", { name: "a" }],
  ["POST", "/webhooks", "webhook:write", { url: "http://127.0.0.1/" }],
  ["GET", "/webhooks", "webhook:read"],
  ["GET", "/webhooks/x", "webhook:read"],
  ["PATCH", "/webhooks/x", "webhook:write", {}],
  ["DELETE", "/webhooks/x", "webhook:write"],
  ["POST", "/webhooks/x/rotate-secret", "webhook:write"],
  ["POST", "/webhooks/x/test", "webhook:write"],
  ["POST", "/webhooks/x/recover", "webhook:write", { since: "2026-01-01T00:00:00Z" }],
  ["POST", "/webhooks/x/replay", "webhook:write", { from_sequence: 1, to_sequence: 1 }],
  ["GET", "/webhooks/x/deliveries", "webhook:read"],
  ["GET", "/deliveries/1", "webhook:read"],
  ["POST", "/deliveries/1/resend", "webhook:write"],
  ["GET", "/events", "event:read"],
]

test("case 6: no permissions or * allow every route, a malformed claim none, and each route asks for its own scope", async () => {
  for (const [method, path, scope, body] of routes) {
    for (const claims of [{}, { permissions: ["*"] }, { permissions: [scope] }]) {
      const { status } = await api.ask(method, path, { claims, body, headers: { prefer: "respond-async" } })
      expect([401, 403], `${method} ${path} ${JSON.stringify(claims)}`).not.toContain(status)
    }
    const others = routes.map(([, , other]) => other).filter((other) => other !== scope)
    for (const permissions of ["oops", null, 1, [1], ["*", 1], [], {}, others]) {
      const { status, body: answer } = await api.ask(method, path, { claims: { permissions }, body })
      expect(status, `${method} ${path} ${JSON.stringify(permissions)}`).toBe(403)
      expect(answer.message).toBe(`missing required scope: ${scope}`)
    }
  }
})

test("snapshot:create is enough to take a snapshot, and for nothing else", async () => {
  const claims = { permissions: ["snapshot:create"] }
  const allowed: string[] = []
  for (const [method, path, , body] of routes) {
    const { status } = await api.ask(method, path, { claims, body, headers: { prefer: "respond-async" } })
    if (status !== 403) allowed.push(`${method} ${path}`)
  }

  expect(allowed).toEqual(["POST /instances/x/snapshots"])
})

test("docs/api.md and the API's description say the same of each scope, from the routes", async () => {
  const { info } = (await api.ask("GET", "/spec.json", { claims: null })).body
  const [, table] = info.description.split("## Scopes\n\n")
  const page = await readFile(new URL("../../../docs/api.md", import.meta.url), "utf8")

  expect(table).toMatch(/^\| `snapshot:write` .*`POST \/snapshots\/\{id\}\/fork`/m)
  expect(table).toMatch(/^\| `host:attach` .*`POST \/instances` with `instance:write`/m)
  expect(page).toContain(`${table}\n`)
})

test("case 7: an unknown path is 404 and a wrong method 405, both before the token is looked at", async () => {
  for (const claims of [{}, null]) {
    const unknown = await api.ask("GET", "/nope", { claims })
    expect([unknown.status, unknown.body]).toEqual([
      404,
      { code: "Not Found", message: "no matching operation was found" },
    ])
    const wrong = await api.ask("PATCH", "/snapshots/x", { claims })
    expect([wrong.status, wrong.body]).toEqual([
      405,
      { code: "Method Not Allowed", message: "method not allowed" },
    ])
    expect(wrong.headers.get("allow")).toBe("GET, DELETE")
  }
})

test("cases 8 and 9: token, then schema, then scope, then the instance", async () => {
  const path = "/instances/unknown/snapshots"
  const readOnly = { permissions: ["snapshot:read"] }

  expect((await api.ask("POST", path, { claims: null, body: {} })).status).toBe(401)
  expect((await api.ask("POST", path, { claims: readOnly, body: {} })).status).toBe(400)
  expect((await api.ask("POST", path, { claims: readOnly, body: { kind: "Standby" } })).status).toBe(403)
  expect((await api.ask("POST", path, { body: {} })).status).toBe(400)
  expect((await api.ask("POST", path, { body: { kind: "Standby" } })).status).toBe(404)
})
