import { appendFileSync, closeSync, openSync, writeSync } from "node:fs"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import { parseArgs } from "node:util"
import { microvm, type Answer } from "./firecracker/microvm.ts"
import { formatOf } from "./firecracker/state-file.ts"

// A stand-in for the firecracker binary, started as one: the same arguments, the same API on its socket, the same files. What is
// its own is `--fake-version`, which Firecracker it is, and `--record`, which leaves every exchange in `exchanges.jsonl`.
const exitArguments = 153
const payloadBytesMax = 51_200

const { values } = readArguments()
const version = values["fake-version"]
const minor = Number(version.split(".")[1])

if (values.version) process.stdout.write(`Firecracker v${version}\n\n`)
else if (values["snapshot-version"]) process.stdout.write(`v${formatOf(minor)}\n`)
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
    process.stderr.write(`Error: ParseArguments(${(error as Error).message})\n`)
    process.exit(exitArguments)
  }
}

function serve(): void {
  const log = openLog()
  log(`Running Firecracker v${version}`)
  const vm = microvm(version)
  // One thread answers the API, and it waits for the VM.
  let last: Promise<unknown> = Promise.resolve()
  const server = createServer((request, response) => {
    log(`The API server received a ${request.method} request on "${request.url}".`)
    // What has come is done, also when its client has gone meanwhile.
    const body = bodyOf(request).catch(() => "")
    last = last.then(async () => await exchange(request, await body, response))
  })
  server.on("error", () => {
    process.stderr.write(`Error: RunWithApi(FailedToBindSocket("${values["api-sock"]}"))\n`)
    process.exit(1)
  })
  server.listen({ path: values["api-sock"] })

  async function exchange(request: IncomingMessage, body: string, response: ServerResponse): Promise<void> {
    const { method = "", url = "" } = request
    const answer = await answerTo(method, url, request, body)
    if (values.record) {
      const exchanged = { version, method, path: url, body, status: answer.status, answer: answer.body }
      appendFileSync("exchanges.jsonl", `${JSON.stringify(exchanged)}\n`)
    }
    if (answer.body !== undefined && answer.status === 400)
      log(`Received Error. Status code: 400 Bad Request. Message: ${JSON.stringify(answer.body)}`)
    response.writeHead(answer.status, { Server: "Firecracker API", "Content-Type": "application/json" })
    response.end(answer.body === undefined ? undefined : JSON.stringify(answer.body), () => {
      if (answer.exit !== undefined) end(answer.exit, log)
    })
  }

  async function answerTo(
    method: string,
    path: string,
    request: IncomingMessage,
    body: string,
  ): Promise<Answer> {
    const tooMuch = body.length > payloadBytesMax
    // Its HTTP parser knows no chunks.
    if (request.headers["transfer-encoding"] !== undefined || tooMuch)
      return { status: 400, body: { fault_message: "Invalid request." } }
    return await vm(method, path, body === "" ? undefined : (JSON.parse(body) as Record<string, unknown>))
  }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks).toString("utf8")
}

/** Before 1.13 a log that is missing is an error; none is opened to append. */
function openLog(): (line: string) => void {
  const path = values["log-path"]
  if (path === undefined) return (line) => void process.stdout.write(`${line}\n`)
  let fd: number
  try {
    fd = openSync(path, "r+")
  } catch {
    process.stderr.write(`Error: LoggerInitialization(LoggerUpdateError)\n`)
    process.exit(1)
  }
  process.once("exit", () => closeSync(fd))
  return (line) => void writeSync(fd, `[anonymous-instance:main] ${line}\n`)
}

function end(code: number, log: (line: string) => void): void {
  if (code !== 0) {
    log("RunWithApiError error: Failed to build MicroVM: Loading snapshot failed.")
    log(`Firecracker exiting with error. exit_code=${code}`)
    process.stderr.write(`Error: RunWithApi(BuildMicroVmError(Restore))\n`)
  }
  process.exit(code)
}
