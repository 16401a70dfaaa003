/**
 * A program that answers like cloud-hypervisor, with a guest of its own in place of a virtual machine. It
 * takes what the real one takes: `--version`, or `--api-socket path=<socket>`. `fault.json` in its working
 * directory makes requests fail; `hanging` is written there when one is not to be answered, or not yet, and
 * every exchange is added to `exchanges.jsonl` there.
 */
import { appendFileSync, closeSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs"
import type { IncomingMessage, ServerResponse } from "node:http"
import { flushCompileCache } from "node:module"
import { setTimeout as delay } from "node:timers/promises"
import { parseArgs } from "node:util"
import type { Answer } from "./cloud-hypervisor/answer.ts"
import { takeFault } from "./cloud-hypervisor/faults.ts"
import { requests } from "./cloud-hypervisor/requests.ts"
import { lockSocket } from "./cloud-hypervisor/socket-lock.ts"
import { FakeVmm } from "./cloud-hypervisor/vmm.ts"
import { tenConnections } from "./ten-connections.ts"

// An import of it would load all of fetch() for one of its other exports.
const { createServer } = process.getBuiltinModule("node:http")

const { values } = parseArgs({
  options: {
    "fake-version": { type: "string", default: "v53.0" },
    "api-socket": { type: "string" },
    version: { type: "boolean", short: "V" },
  },
})
const version = values["fake-version"]
const holdPollMs = 10

if (values.version === true) {
  writeSync(1, `cloud-hypervisor ${version}\n`)
  process.exit(0)
}

const socket = values["api-socket"]?.replace(/^path=/, "") ?? "api.sock"
const vmm = new FakeVmm(version)

function leave(): void {
  rmSync(socket, { force: true })
  process.exit(0)
}

// One at a time, in the order of their coming: there is one thread for all requests.
let last: Promise<void> = Promise.resolve()
const server = createServer((request, response) => {
  // A client that goes while it sends has asked for nothing.
  const body = readBody(request).catch(() => undefined)
  last = last.then(async () => {
    const text = await body
    if (text !== undefined) await serve(request, text, response)
  })
})
const front = tenConnections(server)
front.on("error", (error) => {
  writeSync(2, `Error: Cloud Hypervisor exited with the following error: ${error.message} (os error 98)\n`)
  process.exit(1)
})
if (vmm.major >= 53) await lockSocket(socket)
// Tests kill most VMs, and only a clean exit would write it.
front.listen(socket, flushCompileCache)
process.on("SIGTERM", leave)

async function serve(request: IncomingMessage, body: string, response: ServerResponse): Promise<void> {
  const name = (request.url ?? "").replace("/api/v1/", "")
  const fault = takeFault(name)
  if (fault?.does === "hang") {
    writeFileSync("hanging", name)
    return await new Promise<never>(() => {})
  }
  if (fault?.does === "hold") {
    writeFileSync("hanging", name)
    while (takeFault(name)?.does === "hold") await delay(holdPollMs)
  }
  if (fault?.does === "exit") process.exit(1)
  if (fault?.does === "reset") return void request.socket.destroy()
  if (fault?.does === "slow") await new Promise((resolve) => setTimeout(resolve, fault.ms ?? 0))
  const answer =
    fault?.does === "refuse"
      ? vmm.refused(["Error from API", "The VM could not do it", "A fault that was asked for"])
      : await answerTo(request, name, body, fault)
  if (fault?.does === "exit_after") process.exit(1)
  record(request, name, body, answer)
  response.writeHead(answer.status, { server: "Cloud Hypervisor API", "content-type": "application/json" })
  response.end(answer.body, () => {
    if (answer.exits === true) leave()
  })
}

async function answerTo(
  request: IncomingMessage,
  name: string,
  body: string,
  fault: ReturnType<typeof takeFault>,
): Promise<Answer> {
  const known = requests[name]
  if (known === undefined) return { status: 404, body: vmm.errorBody(["Not Found"]) }
  const length = Number(request.headers["content-length"] ?? 0)
  const chunked = request.headers["transfer-encoding"] !== undefined
  const wrongBody = known.takesBody ? length === 0 : length > 0
  if (request.method !== known.method || chunked || wrongBody)
    return { status: 400, body: vmm.errorBody(["Bad Request"]) }
  try {
    const parsed: unknown = known.takesBody ? JSON.parse(body) : undefined
    return await known.carryOut(vmm, parsed as Record<string, unknown>, fault)
  } catch (error) {
    if (error instanceof SyntaxError)
      return { status: 400, body: vmm.errorBody(["Failed to deserialize JSON", error.message]) }
    throw error
  }
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks).toString("utf8")
}

function record(request: IncomingMessage, name: string, body: string, answer: Answer): void {
  const exchange = {
    method: request.method,
    path: `/${name}`,
    body,
    status: answer.status,
    answer: answer.body,
  }
  const fd = openSync("exchanges.jsonl", "a")
  appendFileSync(fd, `${JSON.stringify(exchange)}\n`)
  closeSync(fd)
}
