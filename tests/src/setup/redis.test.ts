import { once } from "node:events"
import { mkdtemp, rm } from "node:fs/promises"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { startRedis } from "@stillframe/testing/redis"
import { afterAll, beforeAll, expect, test } from "vitest"

let dir: string

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "stillframe-redis-"))
})

afterAll(async () => {
  await rm(dir, { recursive: true })
})

test("what was written is there after a stop and a start, and nothing is ever evicted", async () => {
  {
    await using redis = await startRedis({ dir })
    expect(await ask(redis.url, "CONFIG GET maxmemory-policy")).toContain("noeviction")
    expect(await ask(redis.url, "SET kept yes")).toBe("+OK")
  }

  await using again = await startRedis({ dir })

  expect(await ask(again.url, "GET kept")).toBe("$3\r\nyes")
})

test("stopping twice is the same as once, and afterwards nobody listens", async () => {
  const redis = await startRedis({ dir })

  await redis.stop()
  await redis.stop()

  await expect(ask(redis.url, "PING")).rejects.toThrow("ECONNREFUSED")
})

async function ask(url: string, command: string): Promise<string> {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  try {
    socket.write(`${command}\r\n`)
    const [answer] = (await once(socket, "data")) as [Buffer]
    return answer.toString().trim()
  } finally {
    socket.destroy()
  }
}
