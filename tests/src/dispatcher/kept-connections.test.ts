import { once } from "node:events"
import { createServer, type AddressInfo, type Socket } from "node:net"
import type { OwnedDatabase } from "@stillframe/db/client"
import { testDatabase } from "@stillframe/testing/database"
import { expect, test } from "vitest"
import { appendEvents, attempts, webhookTo } from "./deliveries.ts"
import { testDispatcher } from "./dispatchers.ts"

interface RawReceiver extends AsyncDisposable {
  readonly url: string
  /** By the order of its arrival: on which connection a request came, counted from 1. */
  readonly connections: readonly number[]
}

/**
 * A receiver that is nothing but sockets. `answer` gets the number of each request and the connection it came
 * on.
 */
async function rawReceiver(answer: (request: number, socket: Socket) => void): Promise<RawReceiver> {
  const connections: number[] = []
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket)
    const connection = sockets.size
    let received = ""
    socket.on("error", () => socket.destroy())
    socket.on("end", () => socket.end())
    socket.on("data", (chunk) => {
      received += chunk.toString()
      const [head = "", body] = received.split("\r\n\r\n")
      const length = Number(/content-length: (\d+)/i.exec(head)?.[1])
      if (body === undefined || Buffer.byteLength(body) < length) return
      received = ""
      answer(connections.push(connection), socket)
    })
  }).listen(0, "127.0.0.1")
  await once(server, "listening")
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`,
    connections,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, "close")
    },
  }
}

const ok = "HTTP/1.1 204 No Content\r\n\r\n"

/** Appends events one by one, each once the last was delivered, and returns what the attempts came to. */
async function deliverOneByOne(db: OwnedDatabase, databaseUrl: string, url: string, events: number) {
  await webhookTo(db, url)
  await using _dispatcher = await testDispatcher({ databaseUrl })
  for (let event = 1; event <= events; event += 1) {
    await appendEvents(db, 1)
    await expect.poll(async () => (await attempts(db)).length).toBeGreaterThanOrEqual(event)
  }
  return (await attempts(db)).map(({ response_status, error }) => response_status ?? error)
}

test.each([
  ["closes it", (socket: Socket) => socket.end()],
  ["resets it", (socket: Socket) => socket.resetAndDestroy()],
])(
  "a receiver that %s, the kept connection, just when it is used again, gets the webhook on a new one in the same attempt",
  async (_, close) => {
    await using database = await testDatabase()
    await using receiver = await rawReceiver((request, socket) => {
      if (request === 2) close(socket)
      else socket.write(ok)
    })

    const outcomes = await deliverOneByOne(database.db, database.url, receiver.url, 2)

    expect(outcomes).toEqual([204, 204])
    expect(receiver.connections).toEqual([1, 1, 2])
  },
)

test("a receiver that closes a new connection without an answer has failed an attempt", async () => {
  await using database = await testDatabase()
  await using receiver = await rawReceiver((_, socket) => socket.end())

  const outcomes = await deliverOneByOne(database.db, database.url, receiver.url, 1)

  expect(outcomes).toEqual([expect.stringContaining("it closed the connection")])
  expect(receiver.connections).toEqual([1])
})

test("a receiver that closes the kept connection and then the new one has failed one attempt", async () => {
  await using database = await testDatabase()
  await using receiver = await rawReceiver((request, socket) => {
    if (request === 1) socket.write(ok)
    else socket.end()
  })

  const outcomes = await deliverOneByOne(database.db, database.url, receiver.url, 2)

  expect(outcomes).toEqual([204, expect.stringContaining("it closed the connection")])
  expect(receiver.connections).toEqual([1, 1, 2])
})

test.each([
  ["speaks HTTP/1.0", (socket: Socket) => socket.end("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")],
  [
    "asks for a close",
    (socket: Socket) => socket.end("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"),
  ],
  ["closes its side after each answer without a word", (socket: Socket) => socket.end(ok)],
  [
    "keeps a connection for a second",
    (socket: Socket) => socket.write("HTTP/1.1 204 No Content\r\nKeep-Alive: timeout=1\r\n\r\n"),
  ],
])("a receiver that %s gets each webhook at the first try, on a connection of its own", async (_, answer) => {
  await using database = await testDatabase()
  await using receiver = await rawReceiver((_request, socket) => void answer(socket))

  const outcomes = await deliverOneByOne(database.db, database.url, receiver.url, 3)

  expect(outcomes.every((outcome) => outcome === 200 || outcome === 204)).toBe(true)
  expect(receiver.connections).toEqual([1, 2, 3])
})
