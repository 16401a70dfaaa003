import type { Server, ServerOptions } from "node:http"
import type { Socket } from "node:net"

const nodeHeadersMs = 60_000
const nodeRequestMs = 300_000
const laterMs = 5_000

/**
 * A load balancer that sends a request just when the server closes the connection answers 502, so the server must be the
 * later one. The other limits of Node must not close it earlier.
 */
export function timeouts(keepAliveTimeout: number | undefined): ServerOptions {
  if (keepAliveTimeout === undefined) return {}
  const headersTimeout = Math.max(nodeHeadersMs, keepAliveTimeout + laterMs)
  return { keepAliveTimeout, headersTimeout, requestTimeout: Math.max(nodeRequestMs, headersTimeout) }
}

/** Node does not count connections as idle that have never sent a request. Returns how to close those. */
export function silentConnections(server: Server): () => void {
  const silent = new Set<Socket>()
  server.on("connection", (socket) => {
    silent.add(socket)
    socket.once("close", () => silent.delete(socket))
  })
  server.on("request", ({ socket }) => silent.delete(socket))
  return () => {
    for (const socket of silent) socket.destroy()
  }
}
