import { spawn } from "node:child_process"
import { once } from "node:events"
import { rm } from "node:fs/promises"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { openQueueEngine } from "@stillframe/queue/engine"
import { commandRedis } from "@stillframe/testing/queue-engines"
import { startRedis, type Redis } from "@stillframe/testing/redis"
import { scratchFolder } from "@stillframe/testing/scratch"
import { expect, test, vi } from "vitest"
import { testApi } from "../api/test-api.ts"
import { secretsKey, testDispatcher } from "../dispatcher/dispatchers.ts"

async function redisWith(settings: Record<string, string>): Promise<Redis> {
  const dir = await scratchFolder("unsuitable-redis-")
  const redis = await startRedis({ dir, settings })
  return {
    ...redis,
    async [Symbol.asyncDispose]() {
      await redis.stop()
      await rm(dir, { recursive: true, force: true })
    },
  }
}

test("a Redis that may evict jobs is a problem of the queue in /ready until it is set right", async () => {
  await using redis = await redisWith({ "maxmemory-policy": "allkeys-lru" })
  await using api = await testApi()
  await api.host("h1")
  await using _dispatcher = await testDispatcher({ databaseUrl: api.databaseUrl, redisUrl: redis.url })

  const ready = async () => (await api.ask("GET", "/ready", { claims: null })).body
  await expect.poll(ready).toMatchObject({
    status: "degraded",
    problems: [
      {
        where: "queue",
        code: "unavailable",
        message:
          "Redis may remove jobs when its memory is full: its maxmemory-policy is allkeys-lru. Set it to noeviction.",
      },
    ],
  })
  await commandRedis(redis.url, "config", "set", "maxmemory-policy", "noeviction")
  await expect.poll(ready).toMatchObject({ status: "ok", problems: [] })
})

const main = fileURLToPath(import.meta.resolve("@stillframe/dispatcher/main"))

test.each([
  ["may evict jobs", { "maxmemory-policy": "volatile-lru" }, "", /maxmemory-policy is volatile-lru/],
  [
    "wants another password",
    { requirepass: "the-right-one" },
    ":a-wrong-one@",
    /refuses the user or the password/,
  ],
  ["wants no password", { "maxmemory-policy": "allkeys-lfu" }, ":not-asked-for@", /allkeys-lfu/],
])(
  "a process whose Redis %s says so in its log, and prints no line of a library and no password",
  async (_, settings, credentials, words) => {
    await using redis = await redisWith(settings)
    await using api = await testApi()
    const env = {
      DATABASE_URL: api.databaseUrl,
      REDIS_URL: redis.url.replace("//", `//${credentials}`),
      SECRETS_KEY: secretsKey,
    }
    const child = spawn(process.execPath, [main], { env, stdio: ["ignore", "pipe", "pipe"] })
    const printed: string[] = []
    const told = Promise.withResolvers<void>()
    createInterface(child.stdout).on("line", (line) => void printed.push(line))
    createInterface(child.stderr).on("line", (line) => {
      printed.push(line)
      if (words.test(line)) told.resolve()
    })
    const ended = once(child, "exit")

    await told.promise
    child.kill("SIGTERM")
    await ended

    expect(printed.filter((line) => !line.startsWith("{"))).toEqual([])
    for (const line of printed) {
      expect(line).not.toMatch(/the-right-one|a-wrong-one|not-asked-for/)
    }
  },
)

test("a worker whose Redis refuses its password tells so in our words and asks without haste", async () => {
  await using redis = await redisWith({ requirepass: "the-right-one" })
  const errors: Error[] = []
  const engine = await openQueueEngine({
    redisUrl: redis.url,
    databaseUrl: "",
    onError: (error) => void errors.push(error),
  })
  await engine.consume("q", { concurrency: 1, handler: () => Promise.resolve() })
  await vi.waitUntil(() => errors.length > 0, { timeout: 20_000 })
  const job = { queue: "q", id: "a", wake: 0 }

  await expect(engine.add([job])).rejects.toThrow(/Redis|queue/)
  expect(await engine.problems()).toMatchObject([{ code: "unavailable" }])
  await engine.close()

  expect(errors[0]?.message).toMatch(/Redis at \S+: it asks for a password/)
  expect(errors.length).toBeLessThan(200)
})

test("a full Redis and a replica are told as such, and that a full one works again", async () => {
  await using redis = await redisWith({})
  let works = false
  const engine = await openQueueEngine({
    redisUrl: redis.url,
    databaseUrl: "",
    onError: () => void (works = false),
    onConnected: () => void (works = true),
  })
  const job = { queue: "q", id: "a", wake: 0 }
  try {
    await commandRedis(redis.url, "config", "set", "maxmemory", "1")
    await expect(engine.add([job])).rejects.toThrow(/Redis is out of memory/)
    expect((await engine.problems()).map(({ message }) => message).join()).toMatch(/out of memory/)

    await engine.consume("q", { concurrency: 1, handler: () => Promise.resolve() })
    await expect.poll(() => works).toBe(false)
    await commandRedis(redis.url, "config", "set", "maxmemory", "0")
    await engine.add([job])
    await expect.poll(() => works).toBe(true)

    await commandRedis(redis.url, "replicaof", "127.0.0.1", "1")
    await expect(engine.add([job])).rejects.toThrow(/leads to a replica/)
    expect((await engine.problems()).map(({ message }) => message).join()).toMatch(/leads to a replica/)
  } finally {
    await engine.close()
  }
})
