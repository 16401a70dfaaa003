import type { IncomingMessage } from "node:http"
import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { openOwnSocket } from "../process/own-socket.ts"

// An import of it would load all of fetch() for one of its other exports: a fifth of a captor's start.
const { request } = process.getBuiltinModule("node:http")

export interface VmmRequest {
  /** The directory of the VM, whose path may be too long for a socket's address. */
  readonly dir: string
  /** Its name there. */
  readonly socket: string
  readonly method: "GET" | "PUT" | "PATCH"
  readonly path: string
  /** Sent as JSON. Without one no byte of a body is sent: some VMMs refuse one where none belongs. */
  readonly body?: object
  /** The answer must be there by then. No VMM calls anything off when its client goes. */
  readonly deadlineMs: number
}

export interface VmmAnswer {
  readonly status: number
  readonly body: string
}

/** The largest answer of any VMM is its whole configuration, of some KiB. */
const answerBytesMax = 256 * 1024
const nobodyListens: ReadonlySet<string | undefined> = new Set(["ENOENT", "ECONNREFUSED"])
/**
 * `micro_http`, which Firecracker and Cloud Hypervisor serve their API with, holds ten connections and turns
 * the next ones away.
 */
const turnedAway = "Too many open connections"
const turnedAwayPollMs = 20

/**
 * One request to a VMM's API on its unix socket, over a connection of its own; a VMM that has too many of
 * them is asked again. Throws as `openOwnSocket` does, `hypervisor_gone` when nobody listens or the
 * connection ends before the answer does, and `timeout` when none came: then the VMM may still be at it.
 */
export async function askVmm(asked: VmmRequest): Promise<VmmAnswer> {
  const end = performance.now() + asked.deadlineMs
  for (;;) {
    const answer = await ask(asked, end - performance.now())
    if (answer !== undefined) return answer
    if (performance.now() + turnedAwayPollMs >= end) throw late(asked)
    await delay(turnedAwayPollMs)
  }
}

/** Undefined where the VMM has not heard the request. */
async function ask(vmmRequest: VmmRequest, withinMs: number): Promise<VmmAnswer | undefined> {
  const { dir, socket, method, path, body } = vmmRequest
  const own = openOwnSocket(dir, socket)
  const text = body === undefined ? undefined : JSON.stringify(body)
  // Never chunked: the HTTP parsers of VMMs are small.
  const headers = {
    Accept: "application/json",
    ...(method !== "GET" && { "Content-Length": String(Buffer.byteLength(text ?? "")) }),
    ...(text !== undefined && { "Content-Type": "application/json" }),
  }
  const answered = Promise.withResolvers<VmmAnswer>()
  const asked = request(
    { socketPath: own.path, agent: false, method, path, headers },
    (response) => void read(response).then(answered.resolve, answered.reject),
  )
  const timer = setTimeout(() => asked.destroy(late(vmmRequest)), withinMs)
  asked.on("error", (error) => answered.reject(error))
  asked.on("socket", (connection) => connection.once("connect", own.close))
  asked.on("close", own.close)
  asked.end(text)
  try {
    const answer = await answered.promise
    return answer.status === 503 && answer.body.includes(turnedAway) ? undefined : answer
  } catch (error) {
    // It closed the connection before it took a byte. Whether it has ended meanwhile the next try finds out.
    if ((error as NodeJS.ErrnoException).code === "EPIPE") return undefined
    throw explained(error, `${method} ${path}`)
  } finally {
    clearTimeout(timer)
    asked.destroy()
  }
}

async function read(response: IncomingMessage): Promise<VmmAnswer> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > answerBytesMax) throw untrusted(`more than ${answerBytesMax} bytes`)
    chunks.push(chunk)
  }
  return { status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString("utf8") }
}

/** The members of a VMM's answer. Throws `hypervisor_untrusted` for what is no JSON object. */
export function membersOf<T extends object>({ body }: Pick<VmmAnswer, "body">): Partial<T> {
  try {
    const value: unknown = JSON.parse(body)
    if (typeof value === "object" && value !== null) return value
  } catch (error) {
    throw untrusted("what is no JSON", error)
  }
  throw untrusted("what is no object")
}

/** A VMM that its guest has taken over answers as it likes. */
export function untrusted(what: string, cause?: unknown): StillframeError {
  return new StillframeError(
    "hypervisor_untrusted",
    `the VM's process answered ${what}; its guest may have escaped the VM, so stop the instance`,
    { cause },
  )
}

function late({ method, path, deadlineMs }: VmmRequest): StillframeError {
  return new StillframeError(
    "timeout",
    `the VMM did not answer ${method} ${path} within ${deadlineMs / 1_000} s; it may still be working`,
  )
}

function explained(error: unknown, what: string): unknown {
  const { code } = error as NodeJS.ErrnoException
  if (nobodyListens.has(code))
    return new StillframeError("hypervisor_gone", `${what} was not received: the VM's process has ended`, {
      cause: error,
    })
  // An error of the HTTP parser.
  if (code?.startsWith("HPE_") === true) return untrusted("what is no HTTP", error)
  if (code === "ECONNRESET")
    return new StillframeError(
      "hypervisor_gone",
      `the VMM closed its connection before it answered ${what}`,
      {
        cause: error,
      },
    )
  return error
}
