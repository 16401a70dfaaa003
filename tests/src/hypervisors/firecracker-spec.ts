import { readFileSync } from "node:fs"
import { Ajv, type ErrorObject, type ValidateFunction } from "ajv"
import addFormats from "ajv-formats"
import { parse } from "yaml"

/** One request and its answer, as the stand-in records them. */
export interface Exchange {
  version: string
  method: string
  path: string
  body: string
  status: number
  answer?: object
}

interface Schema {
  properties?: Record<string, unknown>
}

interface Swagger {
  paths: Record<string, Record<string, SwaggerOperation>>
  definitions: Record<string, Schema>
}

interface SwaggerOperation {
  parameters?: { in: string }[]
  responses: Record<string, object>
}

/** Since which 1.x a load may have what neither 1.10 nor, where it is larger, the versions between know. */
const loadFieldsSince = {
  network_overrides: 12,
  track_dirty_pages: 13,
  vsock_override: 16,
  clock_realtime: 16,
}

const oldest = read("v1.10.1")
const newest = read("v1.16.1")
const checks = new Map<number, (exchange: Exchange) => string[]>()

/**
 * What is wrong with an exchange by the official description of its version; what was refused may have been
 * wrong.
 */
export function violations(exchange: Exchange): string[] {
  const minor = minorOf(exchange.version)
  const check = checks.get(minor) ?? checkAgainst(descriptionOf(minor))
  checks.set(minor, check)
  return check(exchange)
}

export function describesLoadMember(version: string, member: string): boolean {
  return member in loadOf(descriptionOf(minorOf(version)))
}

/** The newest as it is; of the ones between 1.10 and it, the oldest with what was added to a load. */
function descriptionOf(minor: number): Swagger {
  if (minor >= 16) return newest
  const swagger = structuredClone(oldest)
  for (const [name, since] of Object.entries(loadFieldsSince))
    if (since <= minor) loadOf(swagger)[name] = loadOf(newest)[name]
  const { NetworkOverride } = newest.definitions
  if (NetworkOverride !== undefined) swagger.definitions["NetworkOverride"] = NetworkOverride
  return swagger
}

function checkAgainst(swagger: Swagger): (exchange: Exchange) => string[] {
  const ajv = addFormats.default(new Ajv({ strict: false, allErrors: true, logger: false }))
  ajv.addSchema(closed(swagger) as object, "firecracker")
  const compiled = new Map<string, ValidateFunction>()
  const validate = (pointer: string[], value: unknown): string[] => {
    const ref = `firecracker#/${pointer.map((part) => encodeURIComponent(part.replaceAll("/", "~1"))).join("/")}`
    const validator = compiled.get(ref) ?? ajv.compile({ $ref: ref })
    compiled.set(ref, validator)
    return validator(value) ? [] : (validator.errors ?? []).map(said)
  }
  return ({ method, path, body, status, answer }) => {
    const template = path.replace(/^\/drives\/\w+$/, "/drives/{drive_id}")
    const verb = method.toLowerCase()
    const operation = swagger.paths[template]?.[verb]
    if (operation === undefined) return [`${method} ${path} is not described`]
    const bodyAt = (operation.parameters ?? []).findIndex((parameter) => parameter.in === "body")
    const at = ["paths", template, verb]
    const refused = status === 400
    if (bodyAt === -1 && body !== "" && !refused) return [`${method} ${path} takes no body`]
    const response = operation.responses[status] === undefined ? "default" : String(status)
    const described = Object.hasOwn(operation.responses[response] ?? {}, "schema")
    return [
      ...(bodyAt === -1 || refused
        ? []
        : validate([...at, "parameters", String(bodyAt), "schema"], JSON.parse(body))),
      ...(described ? validate([...at, "responses", response, "schema"], withoutNulls(answer)) : []),
      ...(!described && answer !== undefined ? [`${status} of ${method} ${path} has no body`] : []),
    ].map((wrong) => `${method} ${path} ${status}: ${wrong}`)
  }
}

const minorOf = (version: string): number => Number(version.split(".")[1])

const said = ({ instancePath, message, params }: ErrorObject): string =>
  `${instancePath} ${message} ${JSON.stringify(params)}`

/** Firecracker answers null for what is absent, which its description does not say. */
function withoutNulls(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value), (_, inner: unknown) => inner ?? undefined)
}

/** Firecracker refuses members it does not know, which the description does not say. */
function closed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(closed)
  if (typeof value !== "object" || value === null) return value
  const copy = Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, closed(inner)]))
  return copy["type"] === "object" && typeof copy["properties"] === "object"
    ? { ...copy, additionalProperties: false }
    : copy
}

function loadOf(swagger: Swagger): Record<string, unknown> {
  const { properties } = swagger.definitions["SnapshotLoadParams"] ?? {}
  if (properties === undefined) throw new Error("the description has no SnapshotLoadParams")
  return properties
}

function read(version: string): Swagger {
  const path = new URL(`specs/firecracker/firecracker-${version}.yaml`, import.meta.url)
  return parse(readFileSync(path, "utf8")) as Swagger
}
