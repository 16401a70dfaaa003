import { once } from "node:events"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import type { EventEnvelope } from "@stillframe/domain/events"
import { Webhook } from "standardwebhooks"

/** A webhook receiver on loopback that verifies each delivery by the `standardwebhooks` library. */
export interface Receiver extends AsyncDisposable {
  readonly url: string
  /** What the API answered at the webhook's creation; deliveries that come before are refused and come again. */
  useSecret(secret: string): void
  /** The first delivery of this type with a valid signature. */
  received(type: EventEnvelope["type"]): Promise<EventEnvelope>
}

const bodyBytesMax = 1024 ** 2

export async function startReceiver(): Promise<Receiver> {
  const events = new Map<string, PromiseWithResolvers<EventEnvelope>>()
  let webhook: Webhook | undefined
  const slot = (type: string): PromiseWithResolvers<EventEnvelope> => {
    const known = events.get(type) ?? Promise.withResolvers<EventEnvelope>()
    events.set(type, known)
    return known
  }
  const server = createServer((request, response) => {
    let body = ""
    request.setEncoding("utf8").on("data", (text: string) => {
      body += text
      if (body.length > bodyBytesMax) request.destroy()
    })
    request.on("end", () => {
      try {
        const event = webhook?.verify(body, request.headers as Record<string, string>) as
          | EventEnvelope
          | undefined
        if (event !== undefined) slot(event.type).resolve(event)
        response.writeHead(event === undefined ? 503 : 204).end()
      } catch {
        // The library's word that the signature is not ours.
        response.writeHead(401).end()
      }
    })
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    useSecret: (secret) => (webhook = new Webhook(secret)),
    received: (type) => slot(type).promise,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, "close")
    },
  }
}
