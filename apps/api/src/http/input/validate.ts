import { StillframeError } from "@stillframe/domain/errors"
import type { z } from "zod"
import { assertCounts, tooManyItems } from "./counts.ts"
import { jsonPointer } from "./query.ts"

/** Checks a body against its schema. Throws `bad_request` in the words of the contract's validator. */
export function validateBody<Schema extends z.ZodType>(schema: Schema, body: unknown): z.output<Schema> {
  const result = schema.safeParse(body, { reportInput: true })
  if (result.success) return result.data
  const { pointer, text } = firstMistake(result.error)
  throw bodyMistake(pointer, text)
}

/** Throws `bad_request` for a body with a list or a record that is longer than its schema allows. */
export function boundBody(schema: z.ZodType, body: unknown): void {
  assertCounts(schema, body, bodyMistake)
}

/** Checks a query's parameters; those that the schema does not name are ignored. Throws `bad_request`. */
export function validateQuery<Schema extends z.ZodObject>(
  schema: Schema,
  values: Readonly<Record<string, unknown>>,
): z.output<Schema> {
  for (const name of Object.keys(schema.shape))
    if (values[name] === "") throw queryMistake(name, "empty value is not allowed")
  assertCounts(schema, values, mistakeAt)
  const result = schema.safeParse(values, { reportInput: true })
  if (result.success) return result.data
  const { pointer, text } = firstMistake(result.error)
  throw mistakeAt(pointer, text)
}

function bodyMistake(pointer: string, text: string): StillframeError {
  return new StillframeError("bad_request", `request body has an error: Error at "${pointer}": ${text}`)
}

function mistakeAt(pointer: string, text: string): StillframeError {
  const [name = "", ...inner] = pointer.split("/").slice(1)
  return queryMistake(name, inner.length === 0 ? text : `Error at "/${inner.join("/")}": ${text}`)
}

function queryMistake(name: string, text: string): StillframeError {
  return new StillframeError("bad_request", `parameter "${name}" in query has an error: ${text}`)
}

function firstMistake(error: z.ZodError): { pointer: string; text: string } {
  const [issue] = error.issues
  if (issue === undefined) return { pointer: "/", text: "is not valid" }
  const last = issue.path.at(-1)
  const missing = issue.input === undefined && issue.code !== "custom" && last !== undefined
  return {
    pointer: jsonPointer(issue.path),
    text: missing ? `property "${String(last)}" is missing` : describe(issue),
  }
}

function describe(issue: z.core.$ZodIssue): string {
  // A text's format is told by its schema, in a sentence.
  if (issue.code === "invalid_type")
    return `value must be ${typeNames[issue.expected] ?? `a ${issue.expected}`}`
  if (issue.code === "invalid_value")
    return `value is not one of the allowed values ${JSON.stringify(issue.values)}`
  if (issue.code === "too_big") return limitText(issue.origin, "most", issue.maximum)
  if (issue.code === "too_small") return limitText(issue.origin, "least", issue.minimum)
  if (issue.code === "invalid_key" && issue.issues[0] !== undefined)
    return `key: ${describe(issue.issues[0])}`
  return issue.message
}

const typeNames: Readonly<Record<string, string>> = {
  object: "an object",
  record: "an object",
  array: "an array",
  int: "an integer",
}

function limitText(origin: string, bound: "most" | "least", limit: number | bigint): string {
  const extreme = bound === "most" ? "maximum" : "minimum"
  if (origin === "string") return `${extreme} string length is ${limit}`
  if (origin === "array" && bound === "most") return tooManyItems(limit)
  if (origin === "array") return `${extreme} number of items is ${limit}`
  return `number must be at ${bound} ${limit}`
}
