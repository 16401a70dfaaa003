import { maxHeaderSize } from "node:http"
import type { Duplex } from "node:stream"

/** Answers a request that Node cannot read, which never reaches the app; Node's own answer has no body. */
export function refuseUnreadable(error: NodeJS.ErrnoException, socket: Duplex): void {
  if (!socket.writable) return
  const { status, code, message } = unreadable[error.code ?? ""] ?? notHttp
  const body = JSON.stringify({ code, message })
  socket.end(
    `HTTP/1.1 ${status} ${code}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`,
  )
}

const notHttp = { status: 400, code: "Bad Request", message: "the request is not valid HTTP/1.1" }

const unreadable: Readonly<Record<string, typeof notHttp>> = {
  ERR_HTTP_REQUEST_TIMEOUT: {
    status: 408,
    code: "Request Timeout",
    message: "the request did not arrive in time; send it again",
  },
  HPE_HEADER_OVERFLOW: {
    status: 431,
    code: "Request Header Fields Too Large",
    message: `the request's URL and headers are together larger than ${maxHeaderSize / 1024} KiB; send a shorter URL, or fewer or shorter headers`,
  },
}
