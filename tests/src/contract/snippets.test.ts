import { execFile, spawnSync } from "node:child_process"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { afterAll, beforeAll, expect, test } from "vitest"
import { testStack, type TestStack } from "../pipeline/test-stack.ts"

const run = promisify(execFile)

// The examples of the contract's own pages, to the letter but for address, token and id.

const curlCreate = String.raw`
curl http://localhost:8080/instances/$ID/snapshots \
    -H 'Content-Type: application/json' \
    -H "Authorization: Bearer $HYPEMAN_API_KEY" \
    -d '{
          "kind": "Standby",
          "name": "pre-upgrade",
          "tags": {
            "team": "backend",
            "env": "staging"
          }
        }'`

const curlList = String.raw`
curl http://localhost:8080/snapshots \
    -H "Authorization: Bearer $HYPEMAN_API_KEY"`

const typescriptCreate = `
import Hypeman from '@onkernel/hypeman';

const client = new Hypeman({
  apiKey: 'My API Key',
});

const snapshot = await client.instances.snapshots.create('id', { kind: 'Standby' });

console.log(snapshot.id);`

const goCreate = `
package main

import (
  "context"
  "fmt"

  "github.com/kernel/hypeman-go"
  "github.com/kernel/hypeman-go/option"
)

func main() {
  client := hypeman.NewClient(
    option.WithAPIKey("My API Key"),
  )
  snapshot, err := client.Instances.Snapshots.New(
    context.TODO(),
    "id",
    hypeman.InstanceSnapshotNewParams{
      Kind: hypeman.SnapshotKindStandby,
    },
  )
  if err != nil {
    panic(err.Error())
  }
  fmt.Printf("%+v\\n", snapshot.ID)
}`

let stack: TestStack
let id: string
beforeAll(async () => {
  stack = await testStack()
  await stack.startCaptureWorker()
  ;({ id } = await stack.launch("vm"))
})
afterAll(() => stack[Symbol.asyncDispose]())

async function shell(snippet: string): Promise<string> {
  const script = snippet.replace("http://localhost:8080", stack.url)
  const env = { PATH: process.env["PATH"], ID: id, HYPEMAN_API_KEY: stack.token }
  return (await run("sh", ["-euc", script], { env })).stdout
}

test.skipIf(lacks("curl", "--version"))("curl: create, then list", async () => {
  const created = JSON.parse(await shell(curlCreate))
  const listed = JSON.parse(await shell(curlList))

  expect(created).toMatchObject({
    kind: "Standby",
    source_instance_id: id,
    name: "pre-upgrade",
    tags: { team: "backend", env: "staging" },
  })
  expect(listed).toMatchObject([{ id: created.id }])
})

test("TypeScript: create", async () => {
  const script = typescriptCreate.replace("My API Key", stack.token).replace("'id'", `'${id}'`)
  const env = { PATH: process.env["PATH"], HYPEMAN_BASE_URL: stack.url }

  const { stdout } = await run(process.execPath, ["--input-type=module", "--eval", script], {
    env,
    cwd: import.meta.dirname,
  })

  expect((await stack.settled(stdout.trim())).status).toBe("ready")
})

const offlineGo = { GOFLAGS: "-mod=mod", GOPROXY: "off", GOSUMDB: "off" }
const goModule = "github.com/kernel/hypeman-go"
const goVersion = lacks("go", "version") ? undefined : cachedGoModule()

test.skipIf(goVersion === undefined)(
  "Go: create",
  async () => {
    const dir = await mkdtemp(join(tmpdir(), "stillframe-go-"))
    try {
      const program = goCreate.replace("My API Key", stack.token).replace('"id"', `"${id}"`)
      await writeFile(join(dir, "main.go"), program)
      await writeFile(join(dir, "go.mod"), `module snippet\n\ngo 1.22\n\nrequire ${goModule} ${goVersion}\n`)
      const env = { ...process.env, ...offlineGo, HYPEMAN_BASE_URL: stack.url }

      const { stdout } = await run("go", ["run", "."], { cwd: dir, env })

      expect((await stack.settled(stdout.trim())).status).toBe("ready")
    } finally {
      await rm(dir, { recursive: true })
    }
  },
  120_000,
)

/** Whether a program is missing, said so that nobody takes a skipped test for a passed one. */
function lacks(program: string, ...anyCall: string[]): boolean {
  const missing = spawnSync(program, anyCall).status !== 0
  if (missing) console.warn(`skipped: ${program} is not on PATH`)
  return missing
}

/** The newest version that this machine already has: no test asks the network for one. */
function cachedGoModule(): string | undefined {
  const query = ["list", "-m", "-f", "{{.Version}}", `${goModule}@latest`]
  const cache = spawnSync("go", ["env", "GOMODCACHE"], { encoding: "utf8" }).stdout.trim()
  const env = { ...process.env, ...offlineGo, GOPROXY: `file://${join(cache, "cache/download")}` }
  const { status, stdout } = spawnSync("go", query, { cwd: tmpdir(), env, encoding: "utf8" })
  if (status === 0) return stdout.trim()
  console.warn(`skipped: the Go module ${goModule} is not in the module cache; fetch it with "go get"`)
  return undefined
}
