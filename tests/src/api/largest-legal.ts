/** As much of a JSON schema as decides how long a legal value can be. */
export interface JsonSchema {
  readonly $ref?: string
  readonly type?: string
  readonly enum?: readonly unknown[]
  readonly const?: unknown
  readonly anyOf?: readonly JsonSchema[]
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly propertyNames?: JsonSchema
  readonly additionalProperties?: JsonSchema
  readonly maxProperties?: number
  readonly items?: JsonSchema
  readonly maxItems?: number
  readonly maxLength?: number
  readonly pattern?: string
}

/** The longest JSON of a value that the schema allows; a list without a limit is empty. */
export function largestLegal(schema: JsonSchema, named: Readonly<Record<string, JsonSchema>>): string {
  const largest = (inner: JsonSchema): string => largestLegal(inner, named)
  if (schema.$ref !== undefined) return largest(named[schema.$ref.split("/").at(-1) ?? ""] ?? {})
  if (schema.const !== undefined) return JSON.stringify(schema.const)
  if (schema.enum !== undefined) return longest(schema.enum.map((value) => JSON.stringify(value)))
  if (schema.anyOf !== undefined) return longest(schema.anyOf.map(largest))
  if (schema.properties !== undefined)
    return `{${Object.entries(schema.properties)
      .map(([name, inner]) => `"${name}":${largest(inner)}`)
      .join(",")}}`
  if (schema.maxProperties !== undefined) {
    const member = `${largest(schema.propertyNames ?? {})}:${largest(schema.additionalProperties ?? {})}`
    return `{${Array.from({ length: schema.maxProperties }, () => member).join(",")}}`
  }
  if (schema.type === "array")
    return `[${Array.from({ length: schema.maxItems ?? 0 }, () => largest(schema.items ?? {})).join(",")}]`
  if (schema.type === "string") return largestText(schema)
  return schema.type === "integer" ? String(Number.MAX_SAFE_INTEGER) : "null"
}

/**
 * Some clients write every character that is not of ASCII as `\uXXXX`. A text that its pattern alone bounds
 * is of ASCII.
 */
function largestText({ maxLength, pattern = "" }: JsonSchema): string {
  if (maxLength !== undefined) return `"${String.raw`\u00e9`.repeat(maxLength)}"`
  const lengths = [...pattern.matchAll(/\{\d+,(\d+)\}/g)].map(([, length]) => Number(length))
  return `"${"a".repeat(Math.max(64, ...lengths))}"`
}

function longest(texts: readonly string[]): string {
  return texts.toSorted((one, other) => other.length - one.length)[0] ?? "null"
}
