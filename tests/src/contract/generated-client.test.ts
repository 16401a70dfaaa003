import { execFile } from "node:child_process"
import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import openapiTS, { astToString, type OpenAPI3 } from "openapi-typescript"
import { afterAll, beforeAll, expect, test } from "vitest"
import { testStack, type TestStack } from "../pipeline/test-stack.ts"

const run = promisify(execFile)
const modules = join(import.meta.dirname, "../../../node_modules")

/** As somebody would write it who has nothing but the description. Prints what it was answered. */
const program = `
import createClient from "openapi-fetch"
import type { components, paths } from "./api.ts"

const [baseUrl = "", token = "", id = ""] = process.argv.slice(2)
const api = createClient<paths>({ baseUrl, headers: { Authorization: \`Bearer \${token}\` } })

function done<T>({ data, error }: { data?: T; error?: components["schemas"]["Error"] }): T {
  if (data === undefined) throw new Error(error === undefined ? "no body" : \`\${error.code}: \${error.message}\`)
  return data
}

const created = done(
  await api.POST("/instances/{id}/snapshots", {
    params: { path: { id }, header: { Prefer: "wait=55", "Idempotency-Key": "generated" } },
    body: {
      kind: "Standby",
      name: "generated",
      tags: { team: "backend" },
      compression: { enabled: false },
    },
  }),
)
const path = { id: created.id }
const listed = done(
  await api.GET("/snapshots", {
    params: { query: { kind: "Standby", tags: { team: "backend" }, status: ["ready", "failed"], limit: 10 } },
  }),
)
const got = done(await api.GET("/snapshots/{id}", { params: { path } }))
const fork = done(
  await api.POST("/snapshots/{id}/fork", { params: { path }, body: { name: "copy", target_state: "Stopped" } }),
)
const events = done(
  await api.GET("/events", {
    params: { query: { types: ["snapshot.captured"], snapshot_id: created.id, after: 0, limit: 5 } },
  }),
)
const { response } = await api.DELETE("/snapshots/{id}", { params: { path } })
const { error } = await api.GET("/snapshots/{id}", { params: { path } })

const forkState: "Stopped" extends typeof fork.state ? string : never = fork.state
console.log(
  JSON.stringify({
    created: { status: created.status, team: created.tags?.["team"], error: created.error?.message },
    listed: listed.map((one) => one.id === created.id && one.size_bytes > 0),
    got: [got.kind, got.compression_state, Date.parse(got.captured_at ?? "") > 0],
    fork: [fork.name, forkState, fork.expires_at],
    events: events.map(({ type, subject, sequence }) => [type, subject.id === created.id, sequence > 0]),
    deleted: response.status,
    gone: error?.code,
  }),
)
`

const compilerOptions = {
  target: "es2024",
  module: "nodenext",
  lib: ["es2024", "dom"],
  types: ["node"],
  strict: true,
  noUncheckedIndexedAccess: true,
  exactOptionalPropertyTypes: true,
  erasableSyntaxOnly: true,
  allowImportingTsExtensions: true,
  noEmit: true,
  skipLibCheck: true,
}

let stack: TestStack
let id: string
let document: OpenAPI3
let dir: string
beforeAll(async () => {
  stack = await testStack()
  await stack.startCaptureWorker()
  ;({ id } = await stack.launch("vm"))
  document = (await stack.ask("GET", "/spec.json", { claims: null })).body
  dir = await mkdtemp(join(tmpdir(), "stillframe-client-"))
  await symlink(modules, join(dir, "node_modules"))
  await writeFile(join(dir, "package.json"), '{ "type": "module" }')
  await writeFile(join(dir, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["program.ts"] }))
  await writeFile(join(dir, "program.ts"), program)
})
afterAll(async () => {
  await rm(dir, { recursive: true, force: true })
  await stack[Symbol.asyncDispose]()
})

test("a client generated from the description lists, creates, gets, forks and deletes", async () => {
  expect(await mistakesAgainst(document)).toBe("")

  const { stdout } = await run(process.execPath, [join(dir, "program.ts"), stack.url, stack.token, id])

  expect(JSON.parse(stdout)).toEqual({
    created: { status: "ready", team: "backend" },
    listed: [true],
    got: ["Standby", "none", true],
    fork: ["copy", "Stopped", null],
    events: [["snapshot.captured", true, true]],
    deleted: 204,
    gone: "not_found",
  })
})

test("a description that leaves out a member in use does not type-check", async () => {
  const lacking = JSON.stringify(document).replaceAll('"captured_at":', '"taken_at":')

  const mistakes = await mistakesAgainst(JSON.parse(lacking))

  expect(mistakes).toContain("'captured_at' does not exist")
})

/**
 * What the compiler says of the program, as strict as it can be, when its types are made from `described`.
 */
async function mistakesAgainst(described: OpenAPI3): Promise<string> {
  await writeFile(join(dir, "api.ts"), astToString(await openapiTS(described)))
  const compiler = join(modules, "typescript/bin/tsc")
  return run(process.execPath, [compiler, "--project", dir]).then(
    ({ stdout }) => stdout,
    ({ stdout }: { stdout: string }) => stdout,
  )
}
