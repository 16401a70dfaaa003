import { once } from "node:events"
import {
  createServer,
  request as forward,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type ServerResponse,
} from "node:http"
import type { AddressInfo } from "node:net"
import { text } from "node:stream/consumers"

/** What becomes of one request. */
type Treatment =
  /** Passed on, and the server's answer back. */
  | "pass"
  /** Passed on; the answer is read to its end, and the client's connection cut instead of passing it back. */
  | "cut"
  /** Answered here: the server never sees it. */
  | { readonly instead: { readonly status: number; readonly headers?: Record<string, string> } }
  /** Passed on; the client is told this, whatever the server has answered. */
  | { readonly replaced: { readonly status: number; readonly headers?: Record<string, string> } }

export interface Proxy extends AsyncDisposable {
  readonly url: string
  /** All that has come so far, oldest first. */
  readonly requests: readonly {
    readonly method: string
    readonly path: string
    readonly headers: IncomingHttpHeaders
  }[]
  /** What becomes of the next requests, one each; afterwards they are passed on. */
  treat(...treatments: Treatment[]): void
}

/**
 * A proxy between a client and the server at `target`. Like other proxies it gives a request up when its
 * client does.
 */
export async function startProxy(target: string): Promise<Proxy> {
  const requests: { method: string; path: string; headers: IncomingHttpHeaders }[] = []
  const treatments: Treatment[] = []

  async function handle(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const { method = "", url: path = "", headers } = req
    requests.push({ method, path, headers })
    const treatment = treatments.shift() ?? "pass"
    const body = await text(req)
    if (typeof treatment === "object" && "instead" in treatment) return answer(res, treatment.instead)
    const upstream = forward(new URL(path, target), { method, headers })
    res.once("close", () => upstream.destroy())
    upstream.end(body)
    const [reply] = (await once(upstream, "response")) as [IncomingMessage]
    const said = await text(reply)
    if (treatment === "cut") res.destroy()
    else if (treatment === "pass") res.writeHead(reply.statusCode ?? 502, reply.headers).end(said)
    else answer(res, treatment.replaced)
  }

  const server = createServer((req, res) => {
    // A client that gives up, and a server that is gone with it, are part of the tests.
    handle(req, res).catch(() => res.destroy())
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    treat: (...more) => treatments.push(...more),
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
    },
  }
}

function answer(
  res: ServerResponse,
  { status, headers = {} }: { status: number; headers?: Record<string, string> },
) {
  res.writeHead(status, headers).end()
}
