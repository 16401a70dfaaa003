import { once } from "node:events"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { wallClock } from "../measure.ts"

// Where the measured deliveries go, a process of its own: each POST is read and answered 204, below `/slow`
// after 20 ms. GET says how many there were since the last GET that asked for as many as there are now, and
// when the first and the last came.

const slowMs = 20
let count = 0
let firstAt = 0
let lastAt = 0

const server = createServer((request, response) => {
  request.resume().on("end", () => {
    if (request.method === "GET") {
      response.end(JSON.stringify({ count, firstAt, lastAt }))
      if (request.url === `/${count}`) count = 0
      return
    }
    lastAt = wallClock()
    if (count++ === 0) firstAt = lastAt
    const answer = (): void => void response.writeHead(204).end()
    if (request.url?.startsWith("/slow") === true) setTimeout(answer, slowMs)
    else answer()
  })
})
// Connections wait while the other side is measured.
server.keepAliveTimeout = 600_000
server.listen(0, "127.0.0.1")
await once(server, "listening")
const { port } = server.address() as AddressInfo
console.error(JSON.stringify({ msg: "listening", url: `http://127.0.0.1:${port}` }))
console.error(JSON.stringify({ msg: "started" }))
