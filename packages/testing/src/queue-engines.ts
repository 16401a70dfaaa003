import { createId } from "@stillframe/domain/ids"
import type { QueueEngine } from "@stillframe/queue/contract"
import { openQueueEngine, type QueueEngineOptions } from "@stillframe/queue/engine"
import { Redis } from "ioredis"
import { Client } from "pg"
import { inject } from "vitest"
import { testDatabase, type TestDatabase } from "./database.ts"

export interface TestQueue extends AsyncDisposable {
  readonly engine: QueueEngine
  /** That of `settings`. */
  readonly database: TestDatabase
  /** What another process opens the same engine with. */
  readonly settings: Omit<QueueEngineOptions, "onError">
  /** All that the engine reported in the background, oldest first. */
  readonly errors: Error[]
  /** Loses everything at once, as a restored backup or an operator's mistake does. */
  wipe(): Promise<void>
}

export type EngineKind = QueueEngine["kind"]
export const engineKinds: readonly EngineKind[] = ["redis", "postgres"]

/**
 * An engine that shares nothing with other tests. Redis: keys of its own. Postgres: a database of its own.
 */
export async function testQueue(kind: EngineKind): Promise<TestQueue> {
  await using opened = new AsyncDisposableStack()
  const database = opened.use(await testDatabase())
  const { url: databaseUrl } = database
  const redisUrl = kind === "redis" ? inject("redisUrl") : undefined
  const settings = { databaseUrl, redisUrl, prefix: createId() }
  const errors: Error[] = []
  const engine = await openQueueEngine({ ...settings, onError: (error) => void errors.push(error) })
  const wipe = (): Promise<void> =>
    redisUrl === undefined ? dropSchema(databaseUrl) : deleteKeys(redisUrl, settings.prefix)
  if (redisUrl !== undefined) opened.defer(wipe)
  opened.defer(() => engine.close())
  const all = opened.move()
  return { engine, database, settings, errors, wipe, [Symbol.asyncDispose]: () => all.disposeAsync() }
}

async function dropSchema(url: string): Promise<void> {
  const client = new Client({ connectionString: url })
  await client.connect()
  await client.query("drop schema bullmq cascade")
  await client.end()
}

/** Sends one command to a Redis, such as `CONFIG SET maxmemory 1`. */
export async function commandRedis(url: string, command: string, ...words: readonly string[]): Promise<void> {
  const redis = new Redis(url)
  try {
    await redis.call(command, ...words)
  } finally {
    redis.disconnect()
  }
}

/** What FLUSHALL does to this test's keys, without doing it to those of the tests beside it. */
async function deleteKeys(url: string, prefix: string): Promise<void> {
  const redis = new Redis(url)
  const keys = await redis.keys(`${prefix}:*`)
  if (keys.length > 0) await redis.del(...keys)
  redis.disconnect()
}
