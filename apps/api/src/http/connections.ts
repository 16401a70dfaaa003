import type { Server, ServerOptions } from "node:http"
import type { Socket } from "node:net"
import type { ApiConfig } from "../config.ts"

/** A body has 512 KiB at most. */
const requestMsMin = 60_000
const laterMs = 5_000
/** Node looks every 30 s by itself. */
const looksPerRequest = 16

/**
 * A load balancer that sends a request just when the server closes the connection answers 502, so the server
 * must be the later one. The time for a whole request, which begins with the connection, must not end before
 * that. `requestMs`: that time, for tests.
 */
export function timeouts({
  keepAliveMs,
  requestMs,
}: Pick<ApiConfig, "keepAliveMs" | "requestMs">): ServerOptions {
  const wholeMs = requestMs ?? Math.max(requestMsMin, (keepAliveMs ?? 0) + laterMs)
  return {
    ...(keepAliveMs !== undefined && { keepAliveTimeout: keepAliveMs }),
    headersTimeout: wholeMs,
    requestTimeout: wholeMs,
    connectionsCheckingInterval: Math.ceil(wholeMs / looksPerRequest),
  }
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
