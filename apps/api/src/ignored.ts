import { z } from "zod"

const namesMax = 20
const nameLengthMax = 100

/**
 * The header `X-Ignored`: which members of a request mean nothing here, as `query.source, body.launch.dsks`. The contract has
 * them ignored, so a misspelt one would go unnoticed. Undefined when every member is known.
 */
export function ignoredHeader({
  query,
  body,
}: {
  query: readonly string[]
  body: readonly string[]
}): string | undefined {
  const names = [...query.map((name) => `query.${name}`), ...body]
  if (names.length === 0) return undefined
  const shown = names.slice(0, namesMax).map((name) => visible(name.slice(0, nameLengthMax)))
  return [...shown, ...(names.length > namesMax ? ["..."] : [])].join(", ")
}

/** Parameters that `schema` does not name. */
export function ignoredParameters(
  schema: z.ZodObject | undefined,
  given: Readonly<Record<string, unknown>>,
): string[] {
  return Object.keys(given).filter((name) => schema === undefined || !Object.hasOwn(schema.shape, name))
}

/** Members at any depth that `schema` does not name, by their paths, which begin with `path`. */
export function ignoredMembers(schema: z.core.$ZodType, value: unknown, path: string): string[] {
  const inner = unwrapped(schema)
  if (inner instanceof z.ZodArray && Array.isArray(value))
    return value.flatMap((item, index) => ignoredMembers(inner.element, item, `${path}[${index}]`))
  if (!(inner instanceof z.ZodObject) || typeof value !== "object" || value === null || Array.isArray(value))
    return []
  return Object.entries(value).flatMap(([key, member]) => {
    const known = Object.hasOwn(inner.shape, key) ? inner.shape[key] : undefined
    return known === undefined ? [`${path}.${key}`] : ignoredMembers(known, member, `${path}.${key}`)
  })
}

/** The schema of the value that a caller writes, without what is said about its absence and its result. */
function unwrapped(schema: z.core.$ZodType): z.core.$ZodType {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodNullable || schema instanceof z.ZodDefault)
    return unwrapped(schema.unwrap())
  return schema instanceof z.ZodPipe ? unwrapped(schema.in) : schema
}

/** A header holds visible ASCII, and the comma separates its names. */
function visible(name: string): string {
  return name.replaceAll(/[^\x21-\x7e]|,/g, "?")
}
