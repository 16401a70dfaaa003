import { sql } from "kysely"
import { afterAll, beforeAll, expect, test } from "vitest"
import { heldMs, heldTries } from "./held-loop.ts"
import { largestLegal, type JsonSchema } from "./largest-legal.ts"
import { testApi, type TestApi } from "./test-api.ts"

const heldMsMax = 50
const kib = 1024

/** A token that may do nothing: its requests are judged by schema all the same. */
const claims = { sub: "stranger", permissions: [] }

interface Writing {
  readonly method: string
  readonly path: string
  readonly schema: JsonSchema
}

let api: TestApi
let schemas: Readonly<Record<string, JsonSchema>>
let routes: readonly Writing[]
beforeAll(async () => {
  api = await testApi()
  const { body: document } = await api.ask("GET", "/spec.json", { claims: null })
  schemas = document.components.schemas
  const operations = Object.entries<Record<string, { requestBody?: { content: object } }>>(document.paths)
  routes = operations.flatMap(([path, methods]) =>
    Object.entries(methods).flatMap(([method, { requestBody }]) => {
      if (requestBody === undefined) return []
      const [{ schema }] = Object.values(requestBody.content) as [{ schema: JsonSchema }]
      return [{ method: method.toUpperCase(), path: path.replaceAll(/\{\w+\}/g, "x"), schema }]
    }),
  )
})
afterAll(() => api[Symbol.asyncDispose]())

test("the largest request that its schema allows is read on every route", async () => {
  for (const { method, path, schema } of routes) {
    const body = largestLegal(schema, schemas)
    const { status } = await api.ask(method, path, { claims, body })
    expect(status, `${method} ${path} with ${body.length} bytes`).not.toBe(413)
  }
})

test("a body that is larger than its route reads is refused with the limit in words", async () => {
  const answer = async (path: string, bytes: number): Promise<unknown> => {
    const { status, body } = await api.ask("POST", path, { claims, body: `"${"a".repeat(bytes - 2)}"` })
    return [status, body.message]
  }
  for (const [path, limitKib] of [
    ["/instances", 512],
    ["/webhooks", 64],
  ] as const) {
    const message = `the request body is larger than ${limitKib} KiB; send a smaller one`
    expect(await answer(path, limitKib * kib)).toEqual([400, expect.stringContaining("must be an object")])
    expect(await answer(path, limitKib * kib + 1)).toEqual([413, message])
  }
})

test("no body of any route holds the event loop for more than 50 ms", async () => {
  for (const { method, path, schema } of routes) {
    const limit = path === "/instances" ? 512 * kib : 64 * kib
    const bodies = [...worstBodies(schema, limit - kib), ["a MiB of keys", badKeys(kib * kib)]]
    for (const [what, body] of bodies)
      expect(
        await heldMs(() => api.ask(method, path, { claims, body })),
        `${method} ${path} ${what}`,
      ).toBeLessThan(heldMsMax)
  }
})

test("no query holds the event loop for more than 50 ms", async () => {
  for (const path of ["/snapshots", "/events/stream"]) {
    for (const parameter of ["tags[*%0a]=v&", "tags[*]=v&", "*&", "types=*&", "types=x,,,,,,,,&"]) {
      const names = Array.from({ length: (15 * kib) / (parameter.length + 3) }, (_, n) => `k${n}`)
      const query = names.map((name) => parameter.replace("*", name)).join("")
      const held = await heldMs(() => api.ask("GET", `${path}?${query}`, { claims }))
      expect(held, `${path} ${parameter}`).toBeLessThan(heldMsMax)
    }
  }
})

test("a list of 10,000 large resources does not hold the event loop for more than 50 ms", async () => {
  await using own = await testApi()
  const tags = Object.fromEntries(Array.from({ length: 50 }, (_, n) => [`k${n}`, "v".repeat(30)]))
  const { body } = await own.ask("POST", "/webhooks", { body: { url: "https://a.example/", tags } })
  await sql`
    insert into webhooks select (jsonb_populate_record(webhook, jsonb_build_object('id', 'w' || lpad(n::text, 23, '0')))).*
    from webhooks as webhook, generate_series(1, 9999) as n where webhook.id = ${body.id}`.execute(own.db)

  expect(await heldMs(() => own.ask("GET", "/webhooks"))).toBeLessThan(heldMsMax)
})

test("the first build of the API's description does not hold the event loop for more than 50 ms", async () => {
  await using opened = new AsyncDisposableStack()
  const apis: TestApi[] = []
  for (let n = 0; n < heldTries; n += 1) apis.push(opened.use(await testApi()))

  const held = await heldMs(async () => {
    const fresh = apis.pop()
    for (const path of ["/spec.yaml", "/spec.json", "/docs"])
      expect((await fetch(`${fresh?.api.url}${path}`)).status).toBe(200)
  })

  expect(held).toBeLessThan(heldMsMax)
})

test("the 51st tag and the item beyond a list's limit end the judgement, whatever else is wrong", async () => {
  const tags = Object.fromEntries(Array.from({ length: 51 }, (_, n) => [`k\n${n}`, n]))
  const message = async (path: string, body: object): Promise<string> =>
    (await api.ask("POST", path, { claims, body })).body.message
  const inBody = 'request body has an error: Error at "'

  expect(await message("/instances/x/snapshots", { tags })).toBe(
    `${inBody}/tags": there must be at most 50 properties`,
  )
  expect(await message("/instances", { launch: { disks: Array.from({ length: 17 }, () => 1) } })).toBe(
    `${inBody}/launch/disks": maximum number of items is 16`,
  )
  expect(await message("/instances/x/start", { cmd: Array.from({ length: 5_000 }, () => 1) })).toBe(
    "request body has an error: it holds more than 4096 values; send fewer",
  )
  const query = Object.keys(tags).map((key) => `tags[${encodeURIComponent(key)}]=v`)
  const list = await api.ask("GET", `/snapshots?${query.join("&")}`, { claims })
  expect([list.status, list.body.message]).toEqual([
    400,
    'parameter "tags" in query has an error: there must be at most 50 properties',
  ])
})

function badKeys(bytes: number): string {
  const members = Array.from({ length: bytes / 16 }, (_, n) => `"${`k\\n${n}`.padEnd(8, "_")}":"v"`)
  return `{${members.join(",")}}`
}

function numbers(bytes: number): string {
  return `[${"1,".repeat(bytes / 2)}1]`
}

/** Each member that is more than one value as the worst of each kind, and what is bad in any body. */
function worstBodies(schema: JsonSchema, bytes: number): [what: string, body: string][] {
  const { properties = {} } = schemas[schema.$ref?.split("/").at(-1) ?? ""] ?? schema
  const structured = Object.entries(properties).filter(
    ([, { type = "object" }]) => type === "object" || type === "array",
  )
  const letters = "a".repeat(bytes / Object.keys(properties).length)
  return [
    ...structured.flatMap(([name]): [string, string][] => [
      [`${name} of keys`, `{"${name}":${badKeys(bytes)}}`],
      [`${name} of numbers`, `{"${name}":${numbers(bytes)}}`],
    ]),
    ["disks of numbers", `{"launch":{"disks":${numbers(bytes - 64)}}}`],
    ["unknown members", badKeys(bytes)],
    ["nested lists", `{"gpu":${"[".repeat(bytes / 2)}${"]".repeat(bytes / 2)}}`],
    ["letters", JSON.stringify(Object.fromEntries(Object.keys(properties).map((name) => [name, letters])))],
  ]
}
