import { appendFileSync } from "node:fs"
import type { IncomingMessage, ServerResponse } from "node:http"
import { flushCompileCache } from "node:module"
import { parseArgs } from "node:util"
import { exitWell, exitWith, openLog, toStdout, type Log } from "./firecracker/log.ts"
import { microvm, type Answer } from "./firecracker/microvm.ts"
import { formatOf } from "./firecracker/state-file.ts"
import { tenConnections } from "./ten-connections.ts"

// A stand-in for the firecracker binary, started as one: the same arguments, the same API on its socket, the
// same files. What is its own is `--fake-version`, which Firecracker it is, and `--record`, which leaves
// every request in `received.log` as it comes and every exchange in `exchanges.jsonl`. Its log has a request
// only once it gets to it. An import of it would load all of fetch() for one of its other exports.
const { createServer } = process.getBuiltinModule("node:http")
const exitArguments = 153
const payloadBytesMax = 51_200
const dropped = "All previous unanswered requests will be dropped."

const { values } = readArguments()
const version = values["fake-version"]
const minor = Number(version.split(".")[1])

if (values.version) tell(`Firecracker v${version}\n\n`)
else if (values["snapshot-version"]) tell(`v${formatOf(minor)}\n`)
else serve()

function readArguments() {
  try {
    return parseArgs({
      options: {
        "fake-version": { type: "string", default: "1.16.1" },
        record: { type: "boolean", default: false },
        version: { type: "boolean", default: false },
        "snapshot-version": { type: "boolean", default: false },
        "api-sock": { type: "string", default: "/run/firecracker.socket" },
        "log-path": { type: "string" },
      },
    })
  } catch (error) {
    const argument = /[\w-]*\w/.exec((error as Error).message.replace(/^\D*?'-*/, ""))?.[0] ?? ""
    exitWith(
      toStdout,
      `Arguments parsing error: Found argument '${argument}' which wasn't expected, or isn't valid in this context.`,
      `ParseArguments(UnexpectedArgument("${argument}"))`,
      exitArguments,
    )
  }
}

/** Its log goes to standard output too, as long as it has no other place. */
function tell(text: string): never {
  process.stdout.write(text)
  exitWell(toStdout)
}

function serve(): void {
  const log = openLog(values["log-path"], minor)
  log(`Running Firecracker v${version}`)
  const vm = microvm(version)
  // One thread answers the API, and it waits for the VM.
  let last: Promise<unknown> = Promise.resolve()
  const server = createServer((request, response) => {
    if (values.record) appendFileSync("received.log", `${request.method} ${request.url}\n`)
    // What has come is done, also when its client has gone meanwhile.
    const body = bodyOf(request).catch(() => "")
    last = last.then(async () => await exchange(request, await body, response))
  })
  listen(server, log)

  async function exchange(request: IncomingMessage, body: string, response: ServerResponse): Promise<void> {
    const { method = "", url = "" } = request
    const answer = unread(request, body) ?? (await heard(method, url, body))
    const text = typeof answer.body === "object" ? JSON.stringify(answer.body) : answer.body
    const type = text === undefined ? {} : { "Content-Type": "application/json" }
    response.writeHead(answer.status, "", { Server: "Firecracker API", Connection: "keep-alive", ...type })
    response.end(text, () => {
      if (answer.exit !== undefined) end(answer.exit, log)
    })
  }

  async function heard(method: string, path: string, body: string): Promise<Answer> {
    const verb = `${method.slice(0, 1)}${method.slice(1).toLowerCase()}`
    const withBody = body === "" ? "" : ` with body ${JSON.stringify(body)}`
    log(`The API server received a ${verb} request on "${path}"${withBody}.`, "fc_api")
    const answer = await vm(method, path, body)
    if (values.record) {
      const exchanged = { version, method, path, body, status: answer.status, answer: answer.body }
      appendFileSync("exchanges.jsonl", `${JSON.stringify(exchanged)}\n`)
    }
    log(outcome(answer), "fc_api")
    return answer
  }
}

function listen(server: ReturnType<typeof createServer>, log: Log): void {
  const path = values["api-sock"]
  const front = tenConnections(server)
  front.on("error", () => {
    exitWith(
      log,
      `RunWithApiError error: Failed to open the API socket at: ${path}. Check that it is not already used.`,
      `RunWithApi(FailedToBindSocket("${path}"))`,
    )
  })
  front.listen({ path }, () => {
    log(`Listening on API socket ("${path}").`)
    log("API server started.", "fc_api")
    // Tests kill most VMs, and only a clean exit would write it.
    flushCompileCache()
  })
}

/**
 * What its HTTP server refuses before anything is parsed; it knows no chunks. The body is no JSON: it holds a
 * line's end.
 */
function unread({ headers }: IncomingMessage, body: string): Answer | undefined {
  const bytes = Buffer.byteLength(body)
  if (headers["transfer-encoding"] !== undefined)
    return { status: 400, body: `{ "error": "Invalid request.\n${dropped}" }` }
  if (bytes > payloadBytesMax)
    return {
      status: 400,
      body: `{ "error": "Request payload with size ${bytes} is larger than the limit of ${payloadBytesMax} allowed by server.\n${dropped}" }`,
    }
  return undefined
}

function outcome({ status, body }: Answer): string {
  if (status === 400)
    return `Received Error. Status code: 400 Bad Request. Message: ${(body as { fault_message: string }).fault_message}`
  return `The request was executed successfully. Status code: ${status === 204 ? "204 No Content" : "200 OK"}.`
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks).toString("utf8")
}

function end(code: number, log: Log): void {
  if (code === 0) {
    log("Vmm is stopping.")
    exitWell(log)
  }
  exitWith(
    log,
    "RunWithApiError error: Failed to build MicroVM: Loading snapshot failed..",
    "RunWithApi(BuildMicroVmError(Restore))",
    code,
  )
}
