import { setImmediate as nextTurn } from "node:timers/promises"
import type { Scope } from "@stillframe/domain/scopes"
import { z } from "zod"
import type { Route } from "../http/route.ts"
import { apiVersion } from "../version.ts"
import { bearer, errorTexts, headers, parameters, pathTexts, type ToReference } from "./parts.ts"
import { errorSchema, instanceSchema } from "./resources.ts"
import { exampleNames, routeTexts } from "./route-texts.ts"
import { scopeTable, templateOf } from "./scope-table.ts"
import { describedWebhooks } from "./webhooks.ts"

type Json = Readonly<Record<string, unknown>>

/**
 * The API as OpenAPI 3.1 describes it, from the very routes and schemas that serve it. Made a route a turn:
 * all at once would hold the event loop for as long as a hundred requests.
 */
export async function openApiDocument(routes: readonly Route[]): Promise<Json> {
  const schemas: Record<string, unknown> = {}
  const reference = (schema: z.ZodType, io: "input" | "output"): unknown => toReference(schema, io, schemas)
  const paths: Record<string, Record<string, Json>> = {}
  for (const route of routes) {
    const path = (paths[templateOf(route.path)] ??= {})
    path[route.method] = operationOf(route, reference)
    await nextTurn()
  }
  return {
    openapi: "3.1.1",
    info: {
      title: "Stillframe",
      version: apiVersion,
      description:
        "Stillframe takes snapshots of running virtual machines as background jobs. The API is that of Hypeman's snapshots, with more members and routes.\n\n" +
        `## Scopes\n\n${scopeTable(routes)}`,
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

function operationOf(route: Route, reference: ToReference): Json {
  return {
    operationId: route.operationId,
    summary: route.summary,
    tags: [tagOf(route)],
    ...(route.scope !== undefined && {
      security: scopesOf(route).map((scope) => ({ bearer: [scope] })),
    }),
    description: descriptionOf(route),
    parameters: parametersOf(route, reference),
    ...(route.body !== undefined && {
      requestBody: {
        required: route.emptyBody === undefined,
        description: "The request, as JSON in UTF-8. Members that the API does not know are ignored.",
        content: {
          "application/json": {
            schema: reference(route.body, "input"),
            ...withExample(routeTexts[route.operationId]?.body),
          },
        },
      },
    }),
    responses: Object.fromEntries([
      ...Object.entries(route.answers).map(([status, schema]) => [
        status,
        answerOf(schema, reference, {
          route,
          retried: Number(status) >= 500,
          warns: route.replay !== undefined && schema === instanceSchema,
        }),
      ]),
      ...errorsOf(route).map((status) => [String(status), errorOf(status, reference)]),
    ]),
  }
}

function descriptionOf(route: Route): string {
  const { description = "" } = routeTexts[route.operationId] ?? {}
  const names = scopesOf(route).map((scope) => `\`${scope}\``)
  return names.length === 0 ? description : `${description}\n\nNeeds the scope ${names.join(" or ")}.`
}

/** Each of them is enough. */
function scopesOf({ scope, narrowerScope }: Route): Scope[] {
  return [scope, narrowerScope].filter((each) => each !== undefined)
}

function withExample(example: unknown): Json {
  return example === undefined ? {} : { example }
}

function parametersOf(route: Route, reference: ToReference): unknown[] {
  const inPath = [...route.path.matchAll(/:(\w+)/g)].map(([, name]) => ({
    name,
    in: "path",
    required: true,
    description: pathTexts[`${route.path.split("/")[1]}/${name}`],
    schema: { type: "string" },
    ...withExample(exampleNames[`${route.path.split("/")[1]}/${name}`]),
  }))
  const inQuery = Object.entries(route.query?.shape ?? {}).map(([name, schema]) => ({
    name,
    in: "query",
    required: route.judgesAbsent?.includes(name) === true || !schema.safeParse(undefined).success,
    description: z.globalRegistry.get(schema)?.description,
    // The schema is that of the parsed value; the style says how the text is written.
    schema: reference(schema, "output"),
    ...withExample(routeTexts[route.operationId]?.query?.[name]),
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
  { route, retried, warns }: { route: Route; retried: boolean; warns: boolean },
): Json {
  const names = [
    "X-Request-Id",
    "X-Ignored",
    ...(retried ? retryHeaders : []),
    ...(route.holds === true ? ["Preference-Applied"] : []),
    ...(route.replay === undefined ? [] : ["Location", "Idempotent-Replayed"]),
    ...(warns ? ["X-Warning"] : []),
    ...(route.query?.shape["cursor"] === undefined ? [] : ["Link", "X-Next-Cursor"]),
  ]
  const mediaType = route.streams === true ? "text/event-stream" : "application/json"
  return {
    description: schema === null ? "Done. The answer has no body." : (schema.description ?? "The resources."),
    headers: headerReferences(names),
    ...(schema !== null && { content: { [mediaType]: { schema: reference(schema, "output") } } }),
  }
}

const retryHeaders = ["x-should-retry", "retry-after-ms"]

/** Derives the possible errors from the requirements of the route. */
function errorsOf(route: Route): number[] {
  const statuses = [
    400,
    ...(route.scope === undefined ? [] : [401, 403]),
    ...(route.path.includes(":") ? [404] : []),
    ...(route.body === undefined ? [] : [413]),
    ...(route.replay === undefined ? [] : [409, 422]),
    ...(route.errors ?? []),
    ...(route.path === "/health" ? [] : [429]),
    500,
    503,
  ]
  return [...new Set(statuses)]
    .filter((status) => route.answers[status] === undefined)
    .toSorted((one, other) => one - other)
}

function errorOf(status: number, reference: ToReference): Json {
  const names = [
    "X-Request-Id",
    "X-Ignored",
    ...(status === 429 ? ["retry-after", "retry-after-ms"] : []),
    ...(status === 409 || status >= 500 ? retryHeaders : []),
  ]
  return {
    description: errorTexts[status] ?? "Error",
    headers: headerReferences(names),
    content: { "application/json": { schema: reference(errorSchema, "output") } },
  }
}

function headerReferences(names: readonly string[]): Json {
  return Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }]))
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
      // Answers may get more members: clients must not refuse unknown ones.
      .filter(([key, inner]) => key !== "additionalProperties" || inner !== false)
      .map(([key, inner]) => {
        if (key === "$ref" && typeof inner === "string")
          return [key, inner.replace("#/$defs/", "#/components/schemas/")]
        // Values, not schemas.
        return [key, key === "examples" ? inner : pointHere(inner)]
      }),
  )
}
