import { once } from "node:events"
import { connect } from "node:net"
import { text } from "node:stream/consumers"
import { afterAll, beforeAll, expect, test } from "vitest"
import { testApi, token, type TestApi } from "./test-api.ts"

let api: TestApi
beforeAll(async () => {
  api = await testApi({ requestMs: 200 })
})
afterAll(() => api[Symbol.asyncDispose]())

/**
 * Sends a part of a request and nothing more. Resolves with what the API answers until it closes the
 * connection.
 */
async function answerTo(part: string): Promise<string> {
  const socket = connect(api.api.port, "127.0.0.1")
  await once(socket, "connect")
  socket.write(part)
  return await text(socket)
}

const head = (path: string): string =>
  `POST ${path} HTTP/1.1\r\nhost: stillframe\r\nauthorization: Bearer ${token({ sub: "tester" })}\r\n`
const json = "content-type: application/json\r\n"

test.each([
  ["in the body of a launch", `${head("/instances")}${json}content-length: 100\r\n\r\n{"name": "vm", `],
  ["in the body of a webhook", `${head("/webhooks")}${json}content-length: 100\r\n\r\n{`],
  ["before its body", `${head("/instances/vm/snapshots")}${json}content-length: 100\r\n\r\n`],
  ["in a chunk of its body", `${head("/instances")}${json}transfer-encoding: chunked\r\n\r\n64\r\n{"name"`],
  ["in its headers", head("/instances")],
])("a request that halts %s is answered 408 and closed", async (_where, part) => {
  const [start = "", body = ""] = (await answerTo(part)).split("\r\n\r\n")

  expect(start.split("\r\n")[0]).toBe("HTTP/1.1 408 Request Timeout")
  expect(JSON.parse(body)).toEqual({
    code: "Request Timeout",
    message: "the request did not arrive in time; send it again",
  })
  expect((await api.ask("GET", "/instances")).status).toBe(200)
})
