import { once } from "node:events"
import { createServer, type AddressInfo, type Socket } from "node:net"
import { sql } from "kysely"
import { expect, test } from "vitest"
import { openDatabase } from "../client.ts"

const loginDone = Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 0, 0x5a, 0, 0, 0, 5, 0x49])

/** As a pooler does whose Postgres is away: it takes the login and refuses the first query. */
function refuseAfterLogin(socket: Socket): void {
  const fields = "SFATAL\0C08P01\0Mserver login has been failing\0\0"
  const refusal = Buffer.alloc(5 + fields.length)
  refusal.write("E")
  refusal.writeInt32BE(4 + fields.length, 1)
  refusal.write(fields, 5)
  socket.on("error", () => undefined)
  socket.once("data", () => {
    socket.write(loginDone)
    socket.once("data", () => socket.end(refusal))
  })
}

test("a pooler that takes connections while Postgres is away does not count as a database that is back", async () => {
  await using opened = new AsyncDisposableStack()
  const server = createServer(refuseAfterLogin).listen(0, "127.0.0.1")
  await once(server, "listening")
  opened.defer(() => void server.close())
  const said: string[] = []
  const db = openDatabase({
    url: `postgres://user@127.0.0.1:${(server.address() as AddressInfo).port}/any`,
    pooled: true,
    onIdleError: () => {},
    onRefused: () => said.push("refused"),
    onConnected: () => said.push("connected"),
  })
  opened.defer(() => db.destroy())

  await expect(sql`select 1`.execute(db)).rejects.toThrow("the pooler there has no Postgres behind it")

  expect(said).toEqual(["refused"])
})
