import { z } from "zod"
import { writtenSchema } from "./written-schema.ts"

const namesMax = 20
const nameLengthMax = 100

/**
 * The header `X-Ignored`: which members of a request mean nothing here, as `query.source, body.launch.dsks`.
 * The contract has them ignored, so a misspelt one would go unnoticed. Undefined when every member is known.
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
  const inner = writtenSchema(schema)
  if (inner instanceof z.ZodArray && Array.isArray(value))
    return value.flatMap((item, index) => ignoredMembers(inner.element, item, `${path}[${index}]`))
  if (!(inner instanceof z.ZodObject) || typeof value !== "object" || value === null || Array.isArray(value))
    return []
  return Object.entries(value).flatMap(([key, member]) => {
    const known = Object.hasOwn(inner.shape, key) ? inner.shape[key] : undefined
    return known === undefined ? [`${path}.${key}`] : ignoredMembers(known, member, `${path}.${key}`)
  })
}

/** A header holds visible ASCII, and the comma separates its names. */
function visible(name: string): string {
  return name.replaceAll(/[^\x21-\x7e]|,/g, "?")
}
