import addFormats from "ajv-formats"
import { Ajv2020 } from "ajv/dist/2020.js"
import { afterAll, beforeAll, expect, test } from "vitest"
import { closed } from "./closed-schema.ts"
import { testApi, type TestApi } from "./test-api.ts"

type Json = Readonly<Record<string, unknown>>

interface Operation {
  readonly operationId: string
  readonly summary: string
  readonly description: string
  readonly parameters: readonly Json[]
  readonly requestBody?: { readonly content: Readonly<Record<string, Json>> }
}

interface Document {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: Readonly<Record<"schemas" | "headers" | "parameters", Readonly<Record<string, Json>>>>
}

let api: TestApi
let document: Document
beforeAll(async () => {
  api = await testApi()
  document = (await api.ask("GET", "/spec.json", { claims: null })).body
})
afterAll(() => api[Symbol.asyncDispose]())

function operations(): Operation[] {
  return Object.values(document.paths).flatMap((methods) => Object.values(methods))
}

test("every member of every schema is described, by itself or by the schema that it points to", () => {
  expect(undescribed(document, "")).toEqual([])
})

/** Pointers to members without a description. */
function undescribed(value: unknown, at: string): string[] {
  if (Array.isArray(value)) return value.flatMap((item, index) => undescribed(item, `${at}/${index}`))
  if (typeof value !== "object" || value === null) return []
  return Object.entries(value).flatMap(([key, inner]) => {
    // Values that are shown, not schemas.
    if (key === "example" || key === "examples") return []
    const below = undescribed(inner, `${at}/${key}`)
    if (key !== "properties" || typeof inner !== "object" || inner === null) return below
    const bare = Object.entries(inner).flatMap(([name, member]) =>
      isDescribed(member as Described) ? [] : [`${at}/properties/${name}`],
    )
    return [...bare, ...below]
  })
}

interface Described {
  readonly description?: string
  readonly $ref?: string
}

function isDescribed({ description, $ref }: Described): boolean {
  if (description !== undefined) return isSentence(description)
  const target = $ref === undefined ? undefined : document.components.schemas[$ref.split("/").at(-1) ?? ""]
  return typeof target?.["description"] === "string"
}

/** Subject first, and to its end; the words that begin a riddle do not begin one here. */
function isSentence(text: string): boolean {
  return /^[A-Z`1-9][^]*[.:]$/.test(text) && !/^(What|Who|Whoever|Whether|Why|Of|Likewise|None)\b/.test(text)
}

test("every schema, parameter, header and operation is described in a sentence", () => {
  const { schemas, headers, parameters } = document.components
  const named = Object.entries({ ...schemas, ...headers, ...parameters })
  const wrong = [
    ...named.filter(([, { description }]) => !isSentence(String(description))).map(([name]) => name),
    ...operations().flatMap(({ operationId, description, parameters }) => [
      ...(isSentence(description) ? [] : [operationId]),
      ...parameters
        .filter(({ $ref, description }) => $ref === undefined && !isSentence(String(description)))
        .map(({ name }) => `${operationId} ${String(name)}`),
    ]),
  ]
  expect(wrong).toEqual([])
})

test("every body has an example, and every example is as its schema says", () => {
  const ajv = addFormats.default(new Ajv2020({ strict: false }))
  ajv.addSchema(closed(document) as object, "api")
  const bodies = operations().flatMap(({ operationId, requestBody }) => {
    const { schema, example } = requestBody?.content["application/json"] ?? {}
    return requestBody === undefined ? [] : [{ operationId, schema: schema as { $ref: string }, example }]
  })
  const shown = Object.entries(document.components.schemas).flatMap(([name, { examples }]) =>
    Array.isArray(examples) ? examples.map((example: unknown) => ({ name, example })) : [],
  )

  expect(bodies.filter(({ example }) => example === undefined)).toEqual([])
  for (const { operationId, schema, example } of bodies)
    expect([operationId, ajv.validate({ $ref: `api${schema.$ref}` }, example)]).toEqual([operationId, true])
  expect(shown.map(({ name }) => name)).toEqual(
    expect.arrayContaining(["Snapshot", "Instance", "Webhook", "Event"]),
  )
  for (const { name, example } of shown)
    expect([name, ajv.validate({ $ref: `api#/components/schemas/${name}` }, example), ajv.errors]).toEqual([
      name,
      true,
      null,
    ])
})

test("no mistake is told as a regular expression or by the name of a schema", async () => {
  await api.instance("vm")
  const bad: [string, string, unknown?][] = [
    ["POST", "/instances/vm/snapshots", { kind: "Standby", name: "Not A Name" }],
    ["POST", "/instances/vm/snapshots", { kind: "Standby", tags: { "#": "a" } }],
    ["POST", "/instances/vm/snapshots", { kind: "Standby", tags: { a: "#" } }],
    ["POST", "/instances/vm/snapshots", {}],
    ["POST", "/instances", { name: "a", host: "A B" }],
    ["POST", "/instances", { name: "a", size: "much" }],
    ["POST", "/instances", { name: "a", launch: { machine: "isapc" } }],
    ["POST", "/instances", { name: "a", launch: { kernel: "relative" } }],
    ["POST", "/instances", { name: "a", launch: { cmdline: "a\nb" } }],
    ["POST", "/instances", { name: "a", launch: { disks: [{ path: "/a,b", format: "raw" }] } }],
    ["POST", "/instances", { name: "a", snapshot_policy: { standby_compression_delay: "soon" } }],
    ["POST", "/instances", { name: "a", attach: { control_socket: "socket" } }],
    ["POST", "/webhooks", { url: "ftp://example.com/" }],
    ["POST", "/webhooks", { url: "https://example.com/", instance_ids: ["vm"] }],
    ["POST", `/webhooks/${"a".repeat(24)}/recover`, { since: "yesterday" }],
    ["POST", "/instances/vm/standby", { compression_delay: "soon" }],
    ["GET", "/snapshots?limit=ten"],
    ["GET", "/events?snapshot_id=vm"],
    ["GET", "/events?after=-1"],
    ["GET", "/instances?name=Not+A+Name"],
    ["GET", "/instances/vm/wait?state=Running&timeout=soon"],
    ["GET", `/webhooks/${"a".repeat(24)}/deliveries?cursor=x`],
  ]
  for (const [method, path, body] of bad) {
    const reply = await api.ask(method, path, body === undefined ? {} : { body })
    expect([path, body, reply.status]).toEqual([path, body, 400])
    expect(reply.body.message).not.toMatch(/[\^$]|regular expression|#\/components|must match|Invalid|\\/)
    expect(reply.body.message).toMatch(/[a-z]{3,} [a-z]+/)
  }
})
