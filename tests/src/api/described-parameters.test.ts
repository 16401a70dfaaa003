import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { testApi, type TestApi } from "./test-api.ts"

interface Document {
  readonly paths: Readonly<
    Record<string, Readonly<Record<string, { readonly parameters: readonly Parameter[] }>>>
  >
  readonly components: { readonly parameters: Readonly<Record<string, Parameter>> }
}

/** Of a `$ref`, nothing. */
interface Parameter {
  readonly in?: string
  readonly name?: string
  readonly required?: boolean
  readonly schema?: {
    readonly type?: string
    readonly minimum?: number
    readonly maximum?: number
    readonly minLength?: number
    readonly pattern?: string
    readonly enum?: readonly string[]
    readonly items?: { readonly enum?: readonly string[] }
  }
}

let api: TestApi
let document: Document
beforeAll(async () => {
  api = await testApi()
  document = (await api.ask("GET", "/spec.json", { claims: null })).body
})
afterAll(() => api[Symbol.asyncDispose]())

describe("what the description says of a query", () => {
  test.each(["/snapshots", "/instances", "/webhooks"])(
    "a page of %s is as long as its range allows",
    async (path) => {
      expect(queryOf(path).get("limit")?.schema).toMatchObject({
        type: "integer",
        minimum: 1,
        maximum: 10_000,
      })
      expect(await statusesOf(path, "limit", [1, 10_000])).toEqual([200, 200])
      expect(await statusesOf(path, "limit", [0, 10_001, "ten"])).toEqual([400, 400, 400])
    },
  )

  test("a position in the feed goes as far as its range does", async () => {
    const last = Number.MAX_SAFE_INTEGER
    expect(queryOf("/events").get("after")?.schema).toMatchObject({
      type: "integer",
      minimum: 0,
      maximum: last,
    })
    const codeOf = async (after: number | bigint) =>
      (await api.ask("GET", `/events?after=${after}`)).body.code
    // The feed has not come that far, which is not a mistake in the number.
    expect(await codeOf(last)).toBe("invalid_request")
    expect(await codeOf(BigInt(last) + 1n)).toBe("Bad Request")
  })

  test.each([
    ["/snapshots", "status"],
    ["/events", "types"],
  ])("in %s, %s is a list of what it names, repeated or with commas", async (path, name) => {
    const { type, items } = queryOf(path).get(name)?.schema ?? {}
    const known = items?.enum ?? []
    expect([type, known.length > 1]).toEqual(["array", true])
    expect(await statusesOf(path, name, [known.join(","), known.join(`&${name}=`)])).toEqual([200, 200])
    expect(await statusesOf(path, name, ["other", `${known[0]},`])).toEqual([400, 400])
  })

  test("no parameter may be empty", async () => {
    for (const path of Object.keys(document.paths)) {
      for (const [name, { schema = {} }] of queryOf(path)) {
        if (name === "tags") continue
        const { status, body } = await api.ask("GET", `${path.replaceAll(/[{}]/g, "")}?${name}=`)
        expect([path, name, status, body.message]).toEqual([
          path,
          name,
          400,
          expect.stringContaining("empty"),
        ])
        const narrower = schema.enum ?? schema.pattern ?? schema.minLength ?? schema.type
        expect([path, name, narrower]).not.toEqual([path, name, "string"])
      }
    }
  })

  test("the state to wait for must be there, and is one of those there are", () => {
    expect(queryOf("/instances/{id}/wait").get("state")).toMatchObject({
      required: true,
      schema: { enum: expect.arrayContaining(["Running", "Standby", "Stopped"]) },
    })
  })
})

describe("what the description says of texts", () => {
  test.each([
    ["of one character", "a"],
    ["as long as it may be", "~".repeat(255)],
    ["with a space", "a b"],
    ["that is too long", "k".repeat(256)],
  ])("an Idempotency-Key %s is refused unless its pattern allows it", async (_name, key) => {
    const { pattern = "" } = document.components.parameters["IdempotencyKey"]?.schema ?? {}
    const { status } = await api.ask("POST", "/instances/none/stop", { headers: { "idempotency-key": key } })
    expect(status).toBe(new RegExp(pattern).test(key) ? 404 : 400)
  })

  test("its patterns need nothing of regular expressions that not every language has", () => {
    const patterns = [...JSON.stringify(document).matchAll(/"pattern":("(?:[^"\\]|\\.)*")/g)].map(
      ([, text = ""]) => JSON.parse(text) as string,
    )
    expect(patterns.length).toBeGreaterThan(10)
    // Classes of Unicode, code points, named groups, looking around.
    expect(patterns.filter((pattern) => /\\[pPuk]|\(\?[^:]/.test(pattern))).toEqual([])
  })
})

test.each([
  ["upper", "512MB"],
  ["lower", "512mb"],
  ["mixed", "0.5 GiB"],
  ["short", "1g"],
])("a size in %s case is as described, and is taken: %s", async (name, size) => {
  await api.host("h1")
  const described = JSON.stringify(document).match(/"size":\{"type":"string","pattern":("(?:[^"\\]|\\.)*")/)
  const { status } = await api.ask("POST", "/instances", {
    body: { name, image: "heartbeat", size },
    headers: { prefer: "respond-async" },
  })
  expect([status, new RegExp(JSON.parse(described?.[1] ?? '""')).test(size)]).toEqual([202, true])
})

function queryOf(path: string): Map<string, Parameter> {
  const parameters = document.paths[path]?.["get"]?.parameters ?? []
  return new Map(
    parameters.flatMap((one) => (one.in === "query" && one.name !== undefined ? [[one.name, one]] : [])),
  )
}

async function statusesOf(path: string, name: string, values: readonly unknown[]): Promise<number[]> {
  const replies = values.map((value) => api.ask("GET", `${path}?${name}=${String(value)}`))
  return (await Promise.all(replies)).map(({ status }) => status)
}
