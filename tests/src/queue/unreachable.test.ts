import { once } from "node:events"
import { createServer, type AddressInfo } from "node:net"
import { openQueueEngine } from "@stillframe/queue/engine"
import { expect, test } from "vitest"

/** An address at which nobody listens any more. */
async function freeAddress(): Promise<string> {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, "close")
  return `redis://127.0.0.1:${port}`
}

test("with Redis down an engine opens, refuses jobs, reports why, and closes", async () => {
  const errors: Error[] = []
  const redisUrl = await freeAddress()
  const job = { queue: "capture.a", id: "a", wake: 0 }

  const engine = await openQueueEngine({
    redisUrl,
    databaseUrl: "",
    onError: (error) => void errors.push(error),
  })
  await engine.consume("capture.a", { concurrency: 1, handler: () => Promise.resolve() })

  await expect(engine.add([job])).rejects.toThrow(/./)
  await expect(engine.unfinished([job])).rejects.toThrow(/./)
  await engine.close()
  expect(errors.map(({ message }) => message).join()).toContain("nothing listens there")
})
