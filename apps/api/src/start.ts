import { once } from "node:events"
import { createServer, type Server, type ServerOptions } from "node:http"
import type { AddressInfo, Socket } from "node:net"
import { openMigrated, type OpenedDatabase } from "@stillframe/db/open"
import { StillframeError } from "@stillframe/domain/errors"
import type { Logger } from "@stillframe/runtime/logger"
import { shutdownDeadlineMs } from "@stillframe/runtime/process"
import { openAnswered } from "./answered.ts"
import { createApp } from "./app.ts"
import type { ApiConfig } from "./config.ts"
import { openEventTail } from "./event-tail.ts"

export interface RunningApi extends AsyncDisposable {
  readonly url: string
  readonly port: number
}

/** What answers in hand may take of a process's shutdown; the rest is for the connections below them. */
const answersDeadlineMs = shutdownDeadlineMs - 5_000

/**
 * Brings the schema up to date, opens the pool (unless it is given a database to share) and listens. Disposing it stops accepting, ends every held answer as if
 * its time had run out, and waits for the answers in hand.
 */
export async function startApi(
  config: ApiConfig,
  log: Logger,
  database?: OpenedDatabase,
): Promise<RunningApi> {
  await using opened = new AsyncDisposableStack()
  const { db, waker } = await openMigrated(opened, { ...config, log }, database)
  const stopping = new AbortController()
  const answered = opened.use(openAnswered(db, log))
  const own = { db, waker, log, stopping: stopping.signal }
  const app = createApp({ ...config, ...own, answered, eventTail: openEventTail(own) })
  const server = createServer(timeouts(config.keepAliveMs), app)
  server.on("clientError", refuseMalformed)
  const closeSilent = silentConnections(server)
  server.listen(config.port, config.listenHost)
  await once(server, "listening").catch((cause: Error) => {
    const message = `can't listen: ${cause.message}; set PORT and LISTEN_HOST to an address that is free`
    throw new StillframeError("unavailable", message, { cause })
  })
  opened.defer(() => closeServer(server, stopping, closeSilent))
  const { port } = server.address() as AddressInfo
  const url = `http://${config.listenHost.includes(":") ? `[${config.listenHost}]` : config.listenHost}:${port}`
  log.info({ url }, "listening")
  const resources = opened.move()
  return { url, port, [Symbol.asyncDispose]: () => resources.disposeAsync() }
}

const nodeHeadersMs = 60_000
const nodeRequestMs = 300_000
const laterMs = 5_000

/**
 * A load balancer that sends a request just when the server closes the connection answers 502, so the server must be the
 * later one. The other limits of Node must not close it earlier.
 */
function timeouts(keepAliveTimeout: number | undefined): ServerOptions {
  if (keepAliveTimeout === undefined) return {}
  const headersTimeout = Math.max(nodeHeadersMs, keepAliveTimeout + laterMs)
  return { keepAliveTimeout, headersTimeout, requestTimeout: Math.max(nodeRequestMs, headersTimeout) }
}

/** Node does not count connections as idle that have never sent a request. Returns how to close those. */
function silentConnections(server: Server): () => void {
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

async function closeServer(
  server: Server,
  stopping: AbortController,
  closeSilent: () => void,
): Promise<void> {
  const closed = once(server, "close")
  server.close()
  closeSilent()
  stopping.abort()
  const deadline = setTimeout(() => server.closeAllConnections(), answersDeadlineMs)
  await closed
  clearTimeout(deadline)
}

// What is not HTTP never reaches the app; Node's own answer to it would have no body.
function refuseMalformed(_error: Error, socket: Socket): void {
  if (!socket.writable) return
  const body = JSON.stringify({ code: "Bad Request", message: "the request is not valid HTTP/1.1" })
  socket.end(
    `HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`,
  )
}
