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
}

export interface Receiver extends AsyncDisposable {
  /** On loopback, by `http://`. */
  readonly url: string
  readonly port: number
  /** All that has come so far, oldest first. */
  readonly requests: readonly ReceivedRequest[]
  /** What the next requests are answered with, one each; afterwards 204. */
  answer(...answers: ScriptedAnswer[]): void
  /** Resolves with the first `count` requests once they have come. */
  received(count: number): Promise<ReceivedRequest[]>
}

/** An HTTP server that keeps what it is sent. */
export async function startReceiver(): Promise<Receiver> {
  const requests: ReceivedRequest[] = []
  const answers: ScriptedAnswer[] = []
  const waiting = new Set<() => void>()

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const { method = "", url: path = "", headers } = request
    const { status, headers: answerHeaders } = answers.shift() ?? { status: 204 }
    response.writeHead(status, answerHeaders).end()
    requests.push({ method, path, headers, body: Buffer.concat(chunks).toString("utf8") })
    for (const look of waiting) look()
  }

  // A sender that goes away in the middle leaves nothing to keep.
  const server = createServer(
    (request, response) => void handle(request, response).catch(() => response.destroy()),
  )
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo

  return {
    url: `http://127.0.0.1:${port}/hook`,
    port,
    requests,
    answer(...next) {
      answers.push(...next)
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
