import { scopes } from "@stillframe/domain/scopes"
import { z } from "zod"
import { describedWebhooks } from "./openapi-webhooks.ts"
import { keyPattern } from "./request-identity.ts"
import { errorSchema } from "./resources.ts"
import type { Route } from "./route.ts"

type Json = Readonly<Record<string, unknown>>

/** The API as OpenAPI 3.1 describes it, from the very routes and schemas that serve it. */
export function openApiDocument(routes: readonly Route[]): Json {
  const schemas: Record<string, unknown> = {}
  const reference = (schema: z.ZodType, io: "input" | "output"): unknown => toReference(schema, io, schemas)
  const paths = Object.fromEntries(
    [...Map.groupBy(routes, ({ path }) => templateOf(path))].map(([path, ofPath]) => [
      path,
      Object.fromEntries(ofPath.map((route) => [route.method, operationOf(route, reference)])),
    ]),
  )
  return {
    openapi: "3.1.1",
    info: {
      title: "Stillframe",
      version: "0.1.0",
      description: "VM snapshots as jobs, behind Hypeman's snapshot API.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [{ url: "/" }],
    security: [],
    tags: [...new Set(routes.map(tagOf))].map((name) => ({ name })),
    paths,
    webhooks: describedWebhooks(reference),
    components: { schemas, headers, parameters, securitySchemes: { bearer } },
  }
}

/** A schema as OpenAPI shows it; what has a name only as a pointer to where it stands. */
export type ToReference = (schema: z.ZodType, io: "input" | "output") => unknown

function operationOf(route: Route, reference: ToReference): Json {
  return {
    operationId: route.operationId,
    summary: route.summary,
    tags: [tagOf(route)],
    ...(route.scope !== undefined && {
      security: [{ bearer: [route.scope] }],
      description: `Needs the scope \`${route.scope}\`.`,
    }),
    parameters: parametersOf(route, reference),
    ...(route.body !== undefined && {
      requestBody: {
        required: route.emptyBody === undefined,
        content: { "application/json": { schema: reference(route.body, "input") } },
      },
    }),
    responses: Object.fromEntries([
      ...Object.entries(route.answers).map(([status, schema]) => [
        status,
        answerOf(schema, reference, { route, retried: Number(status) >= 500 }),
      ]),
      ...errorsOf(route).map((status) => [String(status), errorOf(status, reference)]),
    ]),
  }
}

function parametersOf(route: Route, reference: ToReference): unknown[] {
  const inPath = [...route.path.matchAll(/:(\w+)/g)].map(([, name]) => ({
    name,
    in: "path",
    required: true,
    schema: { type: "string" },
  }))
  const inQuery = Object.entries(route.query?.shape ?? {}).map(([name, schema]) => ({
    name,
    in: "query",
    required: route.judgesAbsent?.includes(name) === true || !schema.safeParse(undefined).success,
    // What the text means: a number, a list. How it is written is the style's to say.
    schema: reference(schema, "output"),
    ...(name === "tags" && { style: "deepObject", explode: true }),
  }))
  const inHeader = [
    "RequestId",
    ...(route.holds === true ? ["Prefer"] : []),
    ...(route.streams === true ? ["LastEventId"] : []),
    ...(route.replay === undefined ? [] : ["IdempotencyKey"]),
  ].map((name) => ({ $ref: `#/components/parameters/${name}` }))
  return [...inPath, ...inQuery, ...inHeader]
}

function answerOf(
  schema: z.ZodType | null,
  reference: ToReference,
  { route, retried }: { route: Route; retried: boolean },
): Json {
  const names = [
    "X-Request-Id",
    ...(retried ? retryHeaders : []),
    ...(route.holds === true ? ["Preference-Applied"] : []),
    ...(route.replay === undefined ? [] : ["Location", "Idempotent-Replayed"]),
    ...(route.query?.shape["cursor"] === undefined ? [] : ["Link", "X-Next-Cursor"]),
  ]
  const mediaType = route.streams === true ? "text/event-stream" : "application/json"
  return {
    description: schema === null ? "Done" : (schema.description ?? "The resource as it is now"),
    headers: headerReferences(names),
    ...(schema !== null && { content: { [mediaType]: { schema: reference(schema, "output") } } }),
  }
}

const retryHeaders = ["x-should-retry", "retry-after-ms"]

/** What can go wrong with a request follows from what is asked of it. */
function errorsOf(route: Route): number[] {
  const statuses = [
    400,
    ...(route.scope === undefined ? [] : [401, 403]),
    ...(route.path.includes(":") ? [404] : []),
    ...(route.body === undefined ? [] : [413]),
    ...(route.replay === undefined ? [] : [409, 422]),
    ...(route.errors ?? []),
    500,
    503,
  ]
  return [...new Set(statuses)]
    .filter((status) => route.answers[status] === undefined)
    .toSorted((one, other) => one - other)
}

function errorOf(status: number, reference: ToReference): Json {
  const names = ["X-Request-Id", ...(status === 409 || status >= 500 ? retryHeaders : [])]
  return {
    description: errorTexts[status] ?? "Error",
    headers: headerReferences(names),
    content: { "application/json": { schema: reference(errorSchema, "output") } },
  }
}

const errorTexts: Readonly<Record<number, string>> = {
  400: "The request is not what the schema says, or asks for what can't be",
  401: "No token, or none of ours",
  403: "The token lacks the scope",
  404: "There is no such resource",
  409: "Not in this state, or the name is taken",
  413: "The body is larger than 1 MiB",
  422: "The Idempotency-Key was used with another body",
  500: "The work has failed, or something that nobody foresaw",
  501: "The host or its hypervisor can't do that",
  503: "The database or the storage pool can't be reached; try again",
  504: "Not done in time, where answers are results",
}

function headerReferences(names: readonly string[]): Json {
  return Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }]))
}

const text = { type: "string" } as const
const headers: Json = {
  "X-Request-Id": { description: "The request's id, also in the log", schema: text },
  Location: { description: "Where the resource is", schema: text },
  Link: { description: 'The next page, `rel="next"`; absent on the last', schema: text },
  "X-Next-Cursor": { description: "`cursor` of the next page", schema: text },
  "Preference-Applied": { description: "What of `Prefer` was followed", schema: text },
  "Idempotent-Replayed": { description: "`true`: an earlier request with this key made it", schema: text },
  "x-should-retry": {
    description: "Whether the same request again can help",
    schema: { enum: ["true", "false"] },
  },
  "retry-after-ms": { description: "When to try again", schema: { type: "string", pattern: "^[0-9]+$" } },
}

const parameters: Json = {
  RequestId: {
    name: "X-Request-Id",
    in: "header",
    description: "An id of the caller's own, for the answer and the log",
    schema: text,
  },
  Prefer: {
    name: "Prefer",
    in: "header",
    description: "`wait=N` holds the answer for up to N seconds (0 to 55), `respond-async` does not hold it",
    schema: text,
  },
  LastEventId: {
    name: "Last-Event-ID",
    in: "header",
    description: "The last `id` that was seen: the stream goes on after it, whatever `after` says",
    schema: { type: "string", pattern: "^[0-9]{1,16}$" },
  },
  IdempotencyKey: {
    name: "Idempotency-Key",
    in: "header",
    description:
      "The same request with the same key within 24 hours is answered with what the first one made",
    schema: { type: "string", pattern: keyPattern.source },
  },
}

const bearer: Json = {
  type: "http",
  scheme: "bearer",
  bearerFormat: "JWT",
  description: `HMAC-signed. \`permissions\` lists scopes: ${scopes.join(", ")}; without it everything is allowed.`,
}

/** `/instances/:id` as OpenAPI writes it. */
function templateOf(path: string): string {
  return path.replaceAll(/:(\w+)/g, "{$1}")
}

function tagOf({ path }: Route): string {
  const [, first = ""] = path.split("/")
  return path.includes("snapshots") ? "snapshots" : first
}

/** A schema's JSON form; what has a name goes to `schemas`, once, and is pointed to. */
function toReference(schema: z.ZodType, io: "input" | "output", schemas: Record<string, unknown>): unknown {
  const { $schema: _, $defs = {}, ...json } = z.toJSONSchema(schema, { io, unrepresentable: "any" })
  for (const [name, definition] of Object.entries($defs)) schemas[name] ??= pointHere(definition)
  const { id } = schema.meta() ?? {}
  if (id === undefined) return pointHere(json)
  schemas[id] ??= pointHere(json)
  return { $ref: `#/components/schemas/${id}` }
}

/** Rewrites the pointers into a document of its own to those into ours. */
function pointHere(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(pointHere)
  if (typeof value !== "object" || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      // The schema's own name, not a member that is called so.
      .filter(([key, inner]) => key !== "id" || typeof inner !== "string")
      // What we show may grow; clients are not to refuse what they do not know.
      .filter(([key, inner]) => key !== "additionalProperties" || inner !== false)
      .map(([key, inner]) =>
        key === "$ref" && typeof inner === "string"
          ? [key, inner.replace("#/$defs/", "#/components/schemas/")]
          : [key, pointHere(inner)],
      ),
  )
}
