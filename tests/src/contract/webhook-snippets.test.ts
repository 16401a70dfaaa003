import { spawn, spawnSync, type ChildProcess } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { createServer, type AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { afterAll, beforeAll, expect, test } from "vitest"
import { happen, secretsKey, testApi, type TestApi } from "../api/test-api.ts"
import { testDispatcher } from "../dispatcher/dispatchers.ts"

// The receivers of the page, to the letter, with real deliveries.

const page = await readFile(join(import.meta.dirname, "../../../docs/webhooks.md"), "utf8")
const offlineGo = { GOFLAGS: "-mod=mod", GOPROXY: "off", GOSUMDB: "off" }
const goModule = "github.com/standard-webhooks/standard-webhooks/libraries"
const python = process.env["PYTHON"] ?? "python3"
const goVersion = cachedGoModule()

const ours = ["verified snapshot.created"]

let api: TestApi
let dir: string
const opened = new AsyncDisposableStack()
beforeAll(async () => {
  api = opened.use(await testApi())
  opened.use(await testDispatcher({ databaseUrl: api.databaseUrl, secretsKey }))
  // Under the tests, so that the library is found from there.
  dir = await mkdtemp(join(import.meta.dirname, "snippet-"))
  opened.defer(() => rm(dir, { recursive: true }))
})
afterAll(() => opened.disposeAsync())

test("TypeScript: the receiver takes what is ours and nothing else", async () => {
  const file = join(dir, "receiver.ts")
  await writeFile(file, snippet("ts"))

  expect(await taken((env) => spawn(process.execPath, [file], { env }))).toEqual(ours)
})

test.skipIf(lacksPythonLibrary())("Python: the receiver takes what is ours and nothing else", async () => {
  expect(await taken((env) => spawn(python, ["-c", snippet("python")], { env }))).toEqual(ours)
})

test.skipIf(goVersion === undefined)(
  "Go: the receiver takes what is ours and nothing else",
  async () => {
    await writeFile(join(dir, "main.go"), snippet("go"))
    await writeFile(join(dir, "go.mod"), `module snippet\n\ngo 1.22\n\nrequire ${goModule} ${goVersion}\n`)
    const build = spawnSync("go", ["build", "-o", "receiver", "."], {
      cwd: dir,
      env: { ...process.env, ...offlineGo },
      encoding: "utf8",
    })
    expect(build.stderr).toBe("")

    expect(await taken((env) => spawn(join(dir, "receiver"), { env }))).toEqual(ours)
  },
  120_000,
)

function snippet(language: string): string {
  const found = new RegExp(`\`\`\`${language}\n(.*?)\n\`\`\``, "s").exec(page)?.[1]
  if (found === undefined) throw new Error(`docs/webhooks.md has no ${language} example`)
  return found
}

/**
 * What a receiver said that was sent something forged, with the answer 401, and then an event, with one that
 * counts.
 */
async function taken(start: (env: NodeJS.ProcessEnv) => ChildProcess): Promise<string[]> {
  const port = await freePort()
  const url = `http://127.0.0.1:${port}/`
  const { body: hook } = await api.ask("POST", "/webhooks", { body: { url } })
  const child = start({ PATH: process.env["PATH"], PORT: String(port), WEBHOOK_SECRET: hook.secret })
  const ended = once(child, "close")
  try {
    const printed: string[] = []
    for (const stream of [child.stdout, child.stderr])
      if (stream !== null) createInterface(stream).on("line", (line) => printed.push(line))
    await expect.poll(() => forged(url)).toBe(401)

    await happen(api, 1)

    await expect.poll(() => printed).toContain("verified snapshot.created")
    await expect.poll(() => statesOf(hook.id)).toEqual(["delivered"])
    return printed.filter((line) => line.startsWith("verified"))
  } finally {
    child.kill("SIGKILL")
    await ended
    await api.ask("DELETE", `/webhooks/${hook.id}`)
  }
}

/** A body that has the form of ours, with a signature that is not; undefined while nobody listens. */
async function forged(url: string): Promise<number | undefined> {
  const headers = {
    "webhook-id": "forged",
    "webhook-timestamp": String(Math.floor(Date.now() / 1_000)),
    "webhook-signature": `v1,${Buffer.alloc(32).toString("base64")}`,
  }
  const body = JSON.stringify({ type: "snapshot.completed" })
  return fetch(url, { method: "POST", headers, body }).then(
    ({ status }) => status,
    () => undefined,
  )
}

async function statesOf(webhookId: string): Promise<string[]> {
  const rows = await api.db
    .selectFrom("deliveries")
    .select("state")
    .where("webhook_id", "=", webhookId)
    .execute()
  return rows.map(({ state }) => state)
}

/** Free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, "close")
  return port
}

/** Said so that nobody takes a skipped test for a passed one. */
function lacksPythonLibrary(): boolean {
  const missing = spawnSync(python, ["-c", "import standardwebhooks"]).status !== 0
  if (missing)
    console.warn(`skipped: ${python} has no standardwebhooks; set PYTHON to one that has, as a venv with it`)
  return missing
}

/** The newest version that this machine already has: no test asks the network for one. */
function cachedGoModule(): string | undefined {
  const cache = spawnSync("go", ["env", "GOMODCACHE"], { encoding: "utf8" }).stdout?.trim()
  if (!cache) {
    console.warn("skipped: go is not on PATH")
    return undefined
  }
  const env = { ...process.env, ...offlineGo, GOPROXY: `file://${join(cache, "cache/download")}` }
  const query = ["list", "-m", "-f", "{{.Version}}", `${goModule}@latest`]
  const { status, stdout } = spawnSync("go", query, { cwd: tmpdir(), env, encoding: "utf8" })
  if (status === 0) return stdout.trim()
  console.warn(`skipped: the Go module ${goModule} is not in the module cache; fetch it with "go get"`)
  return undefined
}
