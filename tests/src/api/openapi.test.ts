import { Validator } from "@seriousme/openapi-schema-validator"
import addFormats from "ajv-formats"
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js"
import fc from "fast-check"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { parse } from "yaml"
import { closed } from "./closed-schema.ts"
import { happen, testApi, type Reply, type TestApi } from "./test-api.ts"

interface Operation {
  readonly operationId: string
  readonly security?: readonly object[]
  readonly parameters: readonly { readonly in?: string; readonly name?: string; readonly $ref?: string }[]
  readonly requestBody?: object
  readonly responses: Readonly<Record<string, { readonly content?: Readonly<Record<string, object>> }>>
}

interface Document {
  readonly openapi: string
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
}

let api: TestApi
let document: Document
beforeAll(async () => {
  api = await testApi()
  await api.instance("vm")
  await api.instance("standby", { state: "Standby" })
  document = (await api.ask("GET", "/spec.json", { claims: null })).body
})
afterAll(() => api[Symbol.asyncDispose]())

function operations(): { path: string; method: string; operation: Operation }[] {
  return Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  )
}

describe("the description of the API", () => {
  test("is valid OpenAPI 3.1, for anybody, as JSON and as YAML", async () => {
    const result = await new Validator().validate(structuredClone({ ...document }))
    const yaml = await api.ask("GET", "/spec.yaml", { claims: null })

    expect(result).toMatchObject({ valid: true })
    expect(document.openapi).toMatch(/^3\.1\./)
    expect(yaml.headers.get("content-type")).toContain("yaml")
    expect(parse(yaml.text)).toEqual(document)
  })

  test("names each operation once, and asks for a token wherever the API does", async () => {
    const ids = operations().map(({ operation }) => operation.operationId)
    expect(new Set(ids).size).toBe(ids.length)
    for (const { path, method, operation } of operations()) {
      const { status } = await api.ask(method.toUpperCase(), path.replaceAll(/[{}]/g, ""), { claims: null })
      expect([path, status === 401]).toEqual([path, operation.security !== undefined])
    }
  })

  test("points to nothing that is not there", () => {
    const text = JSON.stringify(document)
    for (const [, pointer = ""] of text.matchAll(/"\$ref":"#\/([^"]+)"/g)) {
      const target = pointer
        .split("/")
        .reduce<unknown>((at, key) => (at as Record<string, unknown>)[key], document)
      expect([pointer, typeof target]).toEqual([pointer, "object"])
    }
  })
})

describe("the page of the API", () => {
  test("comes from our own origin and needs nothing from another", async () => {
    for (const path of ["/", "/swagger"]) {
      const led = await fetch(`${api.api.url}${path}`, { redirect: "manual" })
      expect([led.status, led.headers.get("location")]).toEqual([302, "/docs"])
    }
    const page = await api.ask("GET", "/docs", { claims: null })
    const wanted = [...page.text.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, url = ""]) => url)

    expect(page.headers.get("content-security-policy")).toContain("default-src 'none'")
    expect(page.headers.get("content-security-policy")).not.toMatch(/https?:|\*/)
    expect(wanted).toHaveLength(4)
    for (const url of wanted) {
      expect(url).toMatch(/^\/[a-z]/)
      expect((await api.ask("GET", url, { claims: null })).status).toBe(200)
    }
  })
})

test("what is done with a webhook and a delivery that are there is answered as it is described", async () => {
  const validators = bodyValidators()
  const known = await knownIds()
  const last = known.webhooks.length - 1
  const done: string[] = []

  // What deletes comes last.
  for (const one of operations().toSorted(
    ({ method }, other) => +(method === "delete") - +(other.method === "delete"),
  )) {
    const kind = one.path.split("/")[1]
    if (kind !== "webhooks" && kind !== "deliveries") continue
    const url = one.path.replace("{id}", known[kind][last] ?? "")
    const { operationId } = one.operation
    const body = webhookBodies[operationId]
    const asked = { ...one, url, ask: { headers: {}, ...(body !== undefined && { body }) } }
    const reply = await api.ask(one.method.toUpperCase(), url, asked.ask)
    expect(mistakeOf(reply, asked, validators)).toBeUndefined()
    expect([operationId, reply.status]).toEqual([operationId, successOf(one.operation)])
    done.push(operationId)
  }

  expect(done).toEqual(expect.arrayContaining(Object.keys(webhookBodies)))
})

/** What asks for a success where a body is needed. */
const webhookBodies: Readonly<Record<string, object>> = {
  createWebhook: { url: "https://example.com/", description: "all", tags: { a: "b" }, instance_ids: [] },
  updateWebhook: { description: null, event_types: ["snapshot.*"] },
  recoverWebhook: { since: "2000-01-01T00:00:00Z" },
  replayWebhook: { from_sequence: 1, to_sequence: 1 },
  rotateWebhookSecret: { grace_seconds: 60 },
}

function successOf({ responses }: Operation): number {
  return Math.min(...Object.keys(responses).map(Number))
}

test("no request gets an answer that the description does not have, and none a 500", async () => {
  const validators = bodyValidators()
  const known = await knownIds()
  await fc.assert(
    fc.asyncProperty(
      fc
        .constantFrom(...operations().filter((one) => !hasNoEnd(one.operation)))
        .chain((one) => requestTo(one, known)),
      async (asked) => {
        const reply = await api.ask(asked.method.toUpperCase(), asked.url, asked.ask)
        expect(mistakeOf(reply, asked, validators)).toBeUndefined()
      },
    ),
    { numRuns: 400 },
  )
})

interface Asked {
  readonly method: string
  readonly operation: Operation
  readonly url: string
  readonly ask: { readonly body?: unknown; readonly headers: Record<string, string> }
}

/** An answer that is a stream; event-stream.test.ts reads it. */
function hasNoEnd({ responses }: Operation): boolean {
  return Object.values(responses).some(({ content }) => content?.["text/event-stream"] !== undefined)
}

/** Some that could be right, and many that are not. Nothing is waited for: nobody does the work. */
function requestTo(
  { path, method, operation }: { path: string; method: string; operation: Operation },
  known: Known,
): fc.Arbitrary<Asked> {
  const ofItsKind = known[path.split("/")[1] as keyof Known] ?? []
  const segment = fc
    .oneof(
      fc.constantFrom(...ofItsKind, "x"),
      fc.constantFrom(...Object.values(known).flat()),
      fc.string({ minLength: 1, maxLength: 30 }),
    )
    // Which a URL can't hold as names: whoever sends it takes them away.
    .filter((name) => name !== "." && name !== "..")
  const names = [...path.matchAll(/\{(\w+)\}/g)].length
  const inQuery = operation.parameters.flatMap(({ in: place, name }) =>
    place === "query" && name ? [name] : [],
  )
  const value = fc.oneof(fc.constantFrom(...values), fc.string({ maxLength: 20 }))
  const query = fc.dictionary(fc.constantFrom("x", "tags[a]", ...inQuery), value, { maxKeys: 3 })
  const body = fc.oneof(fc.constantFrom(...bodies), fc.jsonValue())
  const key = fc.option(fc.constantFrom("k1", "k2", "", "a b"), { nil: undefined })
  return fc
    .record({ segments: fc.array(segment, { minLength: names, maxLength: names }), query, body, key })
    .map((parts) => {
      let at = 0
      const filled = path.replaceAll(/\{\w+\}/g, () => encodeURIComponent(parts.segments[at++] ?? "x"))
      const search = new URLSearchParams(parts.query).toString()
      const headers = {
        prefer: "respond-async",
        ...(parts.key !== undefined && { "idempotency-key": parts.key }),
      }
      return {
        method,
        operation,
        url: `${filled}?${path.endsWith("/wait") ? `${search}&timeout=1ms` : search}`,
        ask: { headers, ...(operation.requestBody !== undefined && { body: parts.body }) },
      }
    })
}

const values = ["Standby", "Running", "1", "0", "created_at", "1ms", "a", "snapshot.created", "ready,failed"]
const bodies = [
  {},
  { kind: "Standby" },
  { kind: "Standby", compression: { enabled: true, level: 25 } },
  { kind: "Stopped", name: "a" },
  { name: "fork" },
  { name: "vm", image: "heartbeat" },
  { url: "https://example.com/" },
  { url: "http://a@b/" },
  { target_state: "Standby" },
  { since: "2000-01-01T00:00:00Z" },
  { from_sequence: 1, to_sequence: 9 },
  { grace_seconds: 0 },
  { description: null, enabled: true },
  { compression_delay: "soon" },
]

type Known = Readonly<Record<"instances" | "snapshots" | "webhooks" | "deliveries", readonly string[]>>

/** By the first part of their paths. Several of what requests delete. */
async function knownIds(): Promise<Known> {
  const ids = async (path: string) =>
    ((await api.ask("GET", path)).body as { id: string }[]).map(({ id }) => id)
  const webhooks: string[] = []
  for (let n = 0; n < 4; n += 1)
    webhooks.push((await api.ask("POST", "/webhooks", { body: { url: "https://example.com/" } })).body.id)
  const { body: snapshot } = await api.ask("POST", "/instances/vm/snapshots", { body: { kind: "Standby" } })
  await happen(api, 1)
  const deliveries = (await Promise.all(webhooks.map((id) => ids(`/webhooks/${id}/deliveries`)))).flat()
  for (const id of deliveries) await attempted(id)
  return {
    instances: [...(await ids("/instances")), "vm", "standby"],
    snapshots: [snapshot.id],
    webhooks,
    deliveries,
  }
}

/** As a dispatcher leaves it, with everything that may be shown of it. */
async function attempted(delivery: string): Promise<void> {
  const id = Number(delivery)
  const outcome = { response_status: 500, error: "answered 500" }
  const at = { attempted_at: new Date(), duration_ms: 1 }
  await api.db
    .insertInto("delivery_attempts")
    .values({ delivery_id: id, ...at, response_body: "", ...outcome })
    .execute()
  await api.db
    .updateTable("deliveries")
    .set({ state: "failed", attempt: 8, ended_at: new Date(), ...outcome })
    .where("id", "=", id)
    .execute()
}

/** By operation and status: what its body must be, no member more. */
/**
 * Each is compiled when it is first asked for: all at once would block this process, API included, for
 * seconds.
 */
function bodyValidators(): Pick<Map<string, ValidateFunction>, "get"> {
  const ajv = addFormats.default(new Ajv2020({ strict: false, allErrors: true }))
  ajv.addSchema(closed(document) as object, "api")
  const compiled = new Map<string, ValidateFunction>()
  const pointers = new Map<string, string>(
    operations().flatMap(({ path, method, operation }) =>
      Object.entries(operation.responses)
        .filter(([, { content }]) => content?.["application/json"] !== undefined)
        .map(([status]) => {
          const keys = ["paths", path, method, "responses", status, "content", "application/json", "schema"]
          const pointer = keys.map((key) =>
            encodeURIComponent(key.replaceAll("~", "~0").replaceAll("/", "~1")),
          )
          return [`${operation.operationId} ${status}`, pointer.join("/")] as const
        }),
    ),
  )
  return {
    get(key) {
      const pointer = pointers.get(key)
      if (pointer === undefined) return undefined
      const known = compiled.get(key) ?? ajv.compile({ $ref: `api#/${pointer}` })
      compiled.set(key, known)
      return known
    },
  }
}

function mistakeOf(
  { status, text }: Reply,
  { operation, url }: Asked,
  validators: ReturnType<typeof bodyValidators>,
): string | undefined {
  const shown = `${operation.operationId} ${url}: ${status} ${text}`
  if (status === 500 || operation.responses[status] === undefined) return shown
  const validate = validators.get(`${operation.operationId} ${status}`)
  if (validate === undefined) return text === "" ? undefined : shown
  return validate(JSON.parse(text)) ? undefined : `${shown} ${JSON.stringify(validate.errors)}`
}
