import { readFile } from "node:fs/promises"
import { allSettings as api } from "@stillframe/api/config"
import { settings as captureWorker } from "@stillframe/capture-worker/config"
import { settings as compressionWorker } from "@stillframe/compression-worker/config"
import { settings as dispatcher } from "@stillframe/dispatcher/config"
import { expect, test } from "vitest"

/** The part of a schema that the page repeats. */
interface Schema {
  safeParse(value: unknown): { readonly success: boolean; readonly data?: unknown }
  unwrap?(): unknown
  readonly minValue?: number | null
  readonly maxValue?: number | null
  readonly options?: readonly unknown[]
}

interface Row {
  readonly name: string
  readonly readBy: string
  readonly byDefault: string
  readonly values: string
}

const apps: Readonly<Record<string, Readonly<Record<string, Schema>>>> = {
  a: api,
  c: captureWorker,
  z: compressionWorker,
  d: dispatcher,
}
// The API's last: its PORT has the wider range.
const schemas: Readonly<Record<string, Schema>> = {
  ...dispatcher,
  ...compressionWorker,
  ...captureWorker,
  ...api,
}
const page = await readFile(new URL("../../../docs/settings.md", import.meta.url), "utf8")
const rows = page.split("\n").flatMap(toRow)

function toRow(line: string): Row[] {
  const [, name = "", readBy = "", byDefault = "", values = ""] =
    /^\| `([A-Z_]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \| [^|]+ \|$/.exec(line) ?? []
  return name === "" ? [] : [{ name, readBy, byDefault, values }]
}

test("docs/settings.md lists each setting once, with the processes that read it, and no other", () => {
  const listed = Object.keys(apps).map((letter) => {
    const read = rows.filter(({ readBy }) => readBy.split(" ").includes(letter))
    return [letter, read.map(({ name }) => name).toSorted()]
  })

  const known = Object.entries(apps).map(([letter, settings]) => [letter, Object.keys(settings).toSorted()])
  expect(listed).toEqual(known)
})

/** Defaults that depend on the machine, in words. */
const ofTheMachine: Readonly<Record<string, string>> = {
  COMPRESSION_THREADS: "number of cores",
  DATA_DIR: "`.stillframe` in the checkout",
  HOST_NAME: "the machine's name",
  STORAGE_POOL: "the machine's name",
  VM_UID_RANGE: "2100000000-2100065535",
}

test("docs/settings.md has the default of each setting", () => {
  for (const { name, byDefault } of rows)
    expect([name, byDefault]).toEqual([name, ofTheMachine[name] ?? defaultOf(schemas[name])])
})

function defaultOf(schema: Schema | undefined): string | undefined {
  const read = schema?.safeParse(undefined)
  if (read?.success !== true) return schema && "required"
  if (read.data === undefined) return "unset"
  return Array.isArray(read.data) ? read.data.join(",") || "none" : `${read.data as string | number}`
}

test("docs/settings.md has the bounds of each number, and every word of a choice", () => {
  // The range of a level is that of its algorithm.
  const numbers = rows.filter(({ name }) => name !== "COMPRESSION_LEVEL" && isNumber(bare(name)))
  const choices = rows.filter(({ name }) => bare(name).options !== undefined)

  const bounds = numbers.map(({ name, values }) => [name, /^\d+ to \d+/.exec(values)?.[0]])
  const words = choices.map(({ name, values }) => [
    name,
    [...values.matchAll(/`(\w+)`/g)].map(([, word]) => word),
  ])

  expect(bounds).toEqual(
    numbers.map(({ name }) => [name, `${bare(name).minValue} to ${bare(name).maxValue}`]),
  )
  expect(words).toEqual(choices.map(({ name }) => [name, bare(name).options]))
  expect(numbers.length).toBeGreaterThan(15)
  expect(choices.length).toBeGreaterThan(4)
})

function isNumber({ minValue }: Schema): boolean {
  return typeof minValue === "number"
}

/** Without the default around it. */
function bare(name: string): Schema {
  let schema = schemas[name] as Schema
  while (schema.unwrap !== undefined) schema = schema.unwrap() as Schema
  return schema
}
