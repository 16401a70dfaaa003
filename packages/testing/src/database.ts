import { randomBytes } from "node:crypto"
import { rm } from "node:fs/promises"
import { join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { openDatabase, type OwnedDatabase } from "@stillframe/db/client"
import { migrate } from "@stillframe/db/migrate"
import { createId } from "@stillframe/domain/ids"
import { startEmbeddedPostgres } from "@stillframe/embedded-postgres/start"
import { openQueueEngine } from "@stillframe/queue/engine"
import { Pool } from "pg"
import { inject } from "vitest"
import type { ContainerServices } from "./containers.ts"
import { startRedis } from "./redis.ts"
import { scratchFolder } from "./scratch.ts"

declare module "vitest" {
  interface ProvidedContext {
    /** Of a database on the server that the tests share; it is theirs to create others. */
    postgresUrl: string
    /** The migrated database that each test's own is copied from. */
    templateDatabase: string
    redisUrl: string
  }
}

export interface TestServices extends AsyncDisposable {
  readonly postgresUrl: string
  readonly templateDatabase: string
  readonly redisUrl: string
}

/**
 * One Postgres and one Redis for a run: those of `TEST_DATABASE_URL` and `TEST_REDIS_URL`, else containers if
 * `TEST_SERVICES=containers` asks for them, else their own in a temporary folder, with a database that is
 * migrated and has the tables of BullMQ's PostgreSQL backend.
 */
export async function startTestServices(): Promise<TestServices> {
  await using opened = new AsyncDisposableStack()
  const dir = await scratchFolder("stillframe-services-")
  opened.defer(() => rm(dir, { recursive: true, force: true }))
  const containers = process.env["TEST_SERVICES"] === "containers" ? await ownContainers(opened) : undefined
  const [postgresUrl, redisUrl] = await Promise.all([
    process.env["TEST_DATABASE_URL"] ?? containers?.postgresUrl ?? ownPostgres(opened, dir),
    process.env["TEST_REDIS_URL"] ?? containers?.redisUrl ?? ownRedis(opened, dir),
  ])
  const templateDatabase = `template_${createId()}`
  await administer(postgresUrl, `create database ${templateDatabase}`)
  opened.defer(() => administer(postgresUrl, `drop database if exists ${templateDatabase} with (force)`))
  await migrateTemplate(withDatabase(postgresUrl, templateDatabase))
  const services = opened.move()
  return {
    postgresUrl,
    templateDatabase,
    redisUrl,
    [Symbol.asyncDispose]: () => services.disposeAsync(),
  }
}

async function ownContainers(opened: AsyncDisposableStack): Promise<ContainerServices> {
  // Imported only here: the engine's client takes a second to load, and most runs need none.
  const { startContainers } = await import("./containers.ts")
  return opened.use(await startContainers())
}

async function ownPostgres(opened: AsyncDisposableStack, dir: string): Promise<string> {
  const password = randomBytes(16).toString("hex")
  const postgres = await startEmbeddedPostgres({ dataDir: join(dir, "postgres"), password, sync: false })
  opened.use(postgres)
  // Every connection of every test proves it; thousands of rounds of hashing guard nothing here.
  await administer(postgres.url, `set scram_iterations = 1; alter role current_user password '${password}'`)
  return postgres.url
}

async function ownRedis(opened: AsyncDisposableStack, dir: string): Promise<string> {
  const redis = await startRedis({ dir: join(dir, "redis") })
  opened.use(redis)
  return redis.url
}

async function migrateTemplate(url: string): Promise<void> {
  const db = openDatabase({ url, onIdleError: rethrow })
  await migrate(db)
  await db.destroy()
  const engine = await openQueueEngine({ databaseUrl: url, onError: rethrow })
  await engine.close()
}

export interface TestDatabase extends AsyncDisposable {
  readonly url: string
  readonly db: OwnedDatabase
  /** Ends every connection to it, as a restart of Postgres does. */
  cutConnections(): Promise<void>
}

/**
 * A migrated database of the test's own, dropped when disposed of. `clockOffset` moves the clock of `db`,
 * such as `1 hour`; `clockOfAll` that of every connection to it.
 */
export async function testDatabase({
  clockOfAll,
  ...options
}: { clockOffset?: string; clockOfAll?: string } = {}): Promise<TestDatabase> {
  const server = inject("postgresUrl")
  const name = `test_${createId()}`
  await administer(
    server,
    `create database ${name} template ${inject("templateDatabase")} strategy file_copy`,
  )
  if (clockOfAll !== undefined)
    await administer(server, `alter database ${name} set stillframe.clock_offset = '${clockOfAll}'`)
  const url = withDatabase(server, name)
  // What breaks is reported by the query that needs it.
  const db = openDatabase({ url, onIdleError: () => undefined, ...options })
  return {
    url,
    db,
    cutConnections: () =>
      administer(server, `select pg_terminate_backend(pid) from pg_stat_activity where datname = '${name}'`),
    async [Symbol.asyncDispose]() {
      await db.destroy()
      await dropOnceUnused(server, name)
    },
  }
}

/**
 * Connections that were closed a moment ago may still be ending; what a failed test left open is cut off in
 * the end.
 */
async function dropOnceUnused(server: string, name: string): Promise<void> {
  const deadline = performance.now() + unusedMs
  const users = "select from pg_stat_activity where datname = $1"
  while (performance.now() < deadline && (await administrator(server).query(users, [name])).rowCount !== 0)
    await delay(unusedPollMs)
  await administer(server, `drop database ${name} with (force)`)
}

const unusedMs = 5_000
const unusedPollMs = 5

async function administer(server: string, statement: string): Promise<void> {
  await administrator(server).query(statement)
}

const administrators = new Map<string, Pool>()

/**
 * One connection for all tests of a process, which may end with it open: a new one takes longer than what it
 * is for.
 */
function administrator(server: string): Pool {
  const known = administrators.get(server)
  if (known !== undefined) return known
  const pool = new Pool({ connectionString: server, max: 1, idleTimeoutMillis: 0, allowExitOnIdle: true })
  // The pool replaces a connection that breaks while it is idle.
  pool.on("error", () => {})
  administrators.set(server, pool)
  return pool
}

function withDatabase(url: string, name: string): string {
  const changed = new URL(url)
  changed.pathname = `/${name}`
  return changed.href
}

function rethrow(error: Error): never {
  throw error
}
