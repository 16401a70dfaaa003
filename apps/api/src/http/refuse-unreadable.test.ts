import { duplexPair } from "node:stream"
import { text } from "node:stream/consumers"
import { expect, test } from "vitest"
import { refuseUnreadable } from "./refuse-unreadable.ts"

test("a URL that is too large is refused in words that name it", async () => {
  const [server, client] = duplexPair()

  refuseUnreadable(Object.assign(new Error("unreadable"), { code: "HPE_HEADER_OVERFLOW" }), server)

  expect(await text(client)).toContain("URL and headers are together larger than 16 KiB; send a shorter URL")
})

test.each([
  ["ERR_HTTP_REQUEST_TIMEOUT", "408 Request Timeout"],
  ["HPE_HEADER_OVERFLOW", "431 Request Header Fields Too Large"],
  ["HPE_INVALID_METHOD", "400 Bad Request"],
])("a request that fails with %s is answered %s, with a body", async (code, status) => {
  const [server, client] = duplexPair()

  refuseUnreadable(Object.assign(new Error("unreadable"), { code }), server)

  const [head = "", body = ""] = (await text(client)).split("\r\n\r\n")
  expect(head.split("\r\n")[0]).toBe(`HTTP/1.1 ${status}`)
  expect(head).toContain(`content-length: ${body.length}`)
  expect(JSON.parse(body)).toEqual({ code: status.slice(4), message: expect.any(String) })
})
