import fc from "fast-check"

/** A schema of the API's description, as far as hostile values are made from it. */
export interface Schema {
  readonly $ref?: string
  readonly type?: string
  readonly enum?: readonly unknown[]
  readonly const?: unknown
  readonly properties?: Readonly<Record<string, Schema>>
  readonly items?: Schema
  readonly anyOf?: readonly Schema[]
  readonly examples?: readonly unknown[]
}

const deep = (depth: number, open: string, close: string): string => open.repeat(depth) + close.repeat(depth)

/** Texts that some layer below an API is known to stumble over. */
const texts = [
  "",
  "\0",
  "a\0b",
  "\ud800",
  "\udc00a",
  "__proto__",
  "constructor",
  "toString",
  "%",
  "'",
  "\\",
  "\u202e",
  "null",
  "NaN",
  "1e3",
  "0x10",
  "-0",
  "9".repeat(300),
  "a".repeat(100_000),
  "0000-01-01T00:00:00Z",
  "0000-01-01T00:00:00+23:59",
  "9999-12-31T23:59:59-23:59",
  `2026-01-01T00:00:00.${"1".repeat(300)}Z`,
  "+275760-09-13T00:00:00Z",
  "2026-02-30T00:00:00Z",
  "/a/../b",
  "json:{}",
  "http://[::1%25eth0]/",
  "https://a:99999/",
  "https://xn--a/",
  "9223372036854775807h",
  "1.7976931348623157e308s",
]

/** Numbers as JSON may write them; some are no number to JavaScript. */
const numbers = [
  "-0",
  "1e400",
  "-1e400",
  "1e-400",
  "9007199254740993",
  "1.5",
  "-1",
  "1e3",
  `1${"0".repeat(400)}`,
]

export const hostileText = fc.oneof(
  fc.constantFrom(...texts),
  fc.string({ unit: "binary", maxLength: 40 }),
  fc.string({ unit: "grapheme", maxLength: 40 }),
)

/** JSON text, valid or nearly so, that has nothing to do with what was asked for. */
const hostileJson = fc.oneof(
  hostileText.map((text) => JSON.stringify(text)),
  fc.constantFrom(...numbers),
  fc.jsonValue().map((value) => JSON.stringify(value)),
  fc.constantFrom(
    "null",
    "[]",
    "{}",
    "[null]",
    "true",
    deep(20_000, "[", "]"),
    deep(20_000, '{"a":', "1}".slice(1)),
    deep(200_000, "[", "]"),
    '{"__proto__":{"polluted":true}}',
    '{"\\u005f_proto__":"x"}',
    '{"constructor":{"prototype":{"polluted":true}}}',
    '{"a":1,"a":2}',
    '"\\ud800"',
    '{"\\u0000":"\\u0000"}',
    '{"toJSON":1}',
    '{"length":1e9}',
  ),
)

/** JSON text that follows a schema in some places and not in others. */
export function bodyFor(schema: Schema, resolve: (pointer: string) => Schema): fc.Arbitrary<string> {
  const known = schema.$ref === undefined ? schema : resolve(schema.$ref)
  return fc.oneof({ weight: 5, arbitrary: likely(known, resolve) }, { weight: 2, arbitrary: hostileJson })
}

function likely(schema: Schema, resolve: (pointer: string) => Schema): fc.Arbitrary<string> {
  const choices = schema.enum ?? schema.examples ?? (schema.const === undefined ? [] : [schema.const])
  if (choices.length > 0) return fc.constantFrom(...choices.map((choice) => JSON.stringify(choice)))
  if (schema.anyOf !== undefined) return fc.oneof(...schema.anyOf.map((one) => bodyFor(one, resolve)))
  if (schema.properties !== undefined)
    return fc
      .record(
        Object.fromEntries(
          Object.entries(schema.properties).map(([name, inner]) => [name, bodyFor(inner, resolve)]),
        ),
        { requiredKeys: [] },
      )
      .map((members) => objectText(Object.entries(members)))
  if (schema.items !== undefined)
    return fc.array(bodyFor(schema.items, resolve), { maxLength: 3 }).map((items) => `[${items.join(",")}]`)
  if (schema.type === "object")
    return fc
      .array(fc.tuple(hostileText, hostileJson), { maxLength: 3 })
      .map((entries) => objectText(entries))
  if (schema.type === "integer") return fc.oneof(fc.integer({ min: 0, max: 300 }).map(String), hostileJson)
  if (schema.type === "boolean") return fc.boolean().map(String)
  return fc.oneof(
    fc.stringMatching(/^[a-z]{1,8}$/).map((text) => JSON.stringify(text)),
    hostileJson,
  )
}

function objectText(entries: readonly (readonly [string, string | undefined])[]): string {
  const members = entries.flatMap(([name, value]) =>
    value === undefined ? [] : [`${JSON.stringify(name)}:${value}`],
  )
  return `{${members.join(",")}}`
}
