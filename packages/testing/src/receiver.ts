import { once } from "node:events"
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"

export interface ReceivedRequest {
  readonly method: string
  readonly path: string
  readonly headers: IncomingHttpHeaders
  /** The exact bytes, as text. */
  readonly body: string
}

export interface ScriptedAnswer {
  readonly status: number
  readonly headers?: Record<string, string>
  readonly body?: string | Buffer
}

/** Answers as no honest server would: not at all, endlessly, half. */
export type Respond = (response: ServerResponse) => void

export interface Receiver extends AsyncDisposable {
  /** On loopback, by `http://`. */
  readonly url: string
  readonly port: number
  /** All that has come so far, oldest first. */
  readonly requests: readonly ReceivedRequest[]
  /** What the next requests are answered with, one each; afterwards what `answerAll` said, else 204. */
  answer(...answers: (ScriptedAnswer | Respond)[]): void
  answerAll(answer: ScriptedAnswer | Respond): void
  /** Resolves with the first `count` requests once they have come. */
  received(count: number): Promise<ReceivedRequest[]>
}

/**
 * An HTTP server that keeps what it is sent. `host` is an address of loopback; a free port unless one is
 * named.
 */
export async function startReceiver({ host = "127.0.0.1", port: wanted = 0 } = {}): Promise<Receiver> {
  const requests: ReceivedRequest[] = []
  const answers: (ScriptedAnswer | Respond)[] = []
  let usual: ScriptedAnswer | Respond = { status: 204 }
  const waiting = new Set<() => void>()

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const { method = "", url: path = "", headers } = request
    const answer = answers.shift() ?? usual
    if (typeof answer === "function") answer(response)
    else response.writeHead(answer.status, answer.headers).end(answer.body)
    requests.push({ method, path, headers, body: Buffer.concat(chunks).toString("utf8") })
    for (const look of waiting) look()
  }

  // A sender that goes away in the middle leaves nothing to keep.
  const server = createServer(
    (request, response) => void handle(request, response).catch(() => response.destroy()),
  )
  server.listen(wanted, host)
  await once(server, "listening")
  const { port } = server.address() as AddressInfo

  return {
    url: `http://${host}:${port}/hook`,
    port,
    requests,
    answer(...next) {
      answers.push(...next)
    },
    answerAll(answer) {
      usual = answer
    },
    received(count) {
      return new Promise((resolve) => {
        const look = (): void => {
          if (requests.length < count) return
          waiting.delete(look)
          resolve(requests.slice(0, count))
        }
        waiting.add(look)
        look()
      })
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, "close")
    },
  }
}
