import type { Server } from "node:http"
import { createServer, type Server as Front } from "node:net"

const connectionsMax = 10
const turnedAway = [
  "HTTP/1.1 503",
  "Server: Firecracker API",
  "Connection: close",
  "Content-Length: 40",
  "",
  '{ "error": "Too many open connections" }',
].join("\r\n")

/**
 * What is to listen in place of an HTTP server: holds ten connections, as `micro_http` does, and turns the
 * next ones away unread.
 */
export function tenConnections(server: Server): Front {
  let open = 0
  return createServer((connection) => {
    connection.on("error", () => connection.destroy())
    if (open === connectionsMax) connection.end(turnedAway, () => connection.destroy())
    else {
      open++
      connection.once("close", () => open--)
      server.emit("connection", connection)
    }
  })
}
