import { once } from "node:events"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import type { EventEnvelope } from "@stillframe/domain/events"
import { Webhook } from "standardwebhooks"

/** A request as the `standardwebhooks` library judges it. */
export type Delivery =
  | { readonly event: EventEnvelope }
  /** Why it was refused, and the text as it came: nobody knows whose. */
  | { readonly refusal: string; readonly body: string }

export interface WebhookReceiver extends AsyncDisposable {
  readonly url: string
  /** Those that come before are answered 503, and come again. */
  useSecret(secret: string): void
}

const bodyBytesMax = 1024 ** 2

/**
 * An HTTP server on loopback that verifies each delivery: 204 for a good one, 401 for a bad signature, 413
 * beyond 1 MiB. Port 0 is any free one. Rejects with the system's error when the port can't be had.
 */
export async function startWebhookReceiver({
  port,
  onDelivery,
}: {
  port: number
  onDelivery: (delivery: Delivery) => void
}): Promise<WebhookReceiver> {
  let webhook: Webhook | undefined

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await bodyOf(request)
    if (body === undefined) return void response.writeHead(413, { connection: "close" }).end()
    if (webhook === undefined) return void response.writeHead(503).end()
    const delivery = verified(webhook, body, request.headers as Record<string, string>)
    response.writeHead("event" in delivery ? 204 : 401).end()
    onDelivery(delivery)
  }

  // A sender that goes away in the middle leaves nothing to answer.
  const server = createServer(
    (request, response) => void answer(request, response).catch(() => response.destroy()),
  )
  server.listen(port, "127.0.0.1")
  await once(server, "listening")
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    useSecret: (secret) => (webhook = new Webhook(secret)),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, "close")
    },
  }
}

/** As text; undefined when it is larger than anything we send. */
async function bodyOf(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = []
  let bytes = 0
  // Not by `for await`: leaving it early would end the connection before the answer.
  const { promise, resolve, reject } = Promise.withResolvers<string | undefined>()
  request.on("data", (chunk: Buffer) => {
    bytes += chunk.length
    if (bytes > bodyBytesMax) return resolve(undefined)
    chunks.push(chunk)
  })
  request.on("end", () => resolve(Buffer.concat(chunks).toString("utf8")))
  request.on("error", reject).on("close", () => reject(new Error("the request has ended early")))
  return promise
}

function verified(webhook: Webhook, body: string, headers: Record<string, string>): Delivery {
  try {
    return { event: webhook.verify(body, headers) as EventEnvelope }
  } catch (error) {
    return { refusal: (error as Error).message, body }
  }
}
