import { randomBytes } from "node:crypto"
import { join } from "node:path"
import { openDatabase, type OwnedDatabase } from "@stillframe/db/client"
import { heartbeat } from "@stillframe/db/hosts/register"
import { advanceInstance, createInstance } from "@stillframe/db/instances/instances"
import { migrate } from "@stillframe/db/migrate"
import { startEmbeddedPostgres } from "@stillframe/embedded-postgres/start"
import { qemuCapabilities } from "@stillframe/hypervisors/qemu/probe/capabilities"
import { mintToken } from "@stillframe/stillframe/token"
import { sql } from "kysely"
import { byTurns, median, printComparisons, type Comparison } from "../measure.ts"
import { startProgram, startScript, type Program } from "../program.ts"
import { scratch } from "../scratch.ts"
import { load, type Load, type LoadRequest } from "./load.ts"
import { seedSnapshots, tagPairs } from "./seed-snapshots.ts"

// Many and short: what disturbs the machine for a second then meets both sides.
const rounds = 25
const one = { connections: 1, requests: 60 }
const saturation = { connections: 32, requests: 300 }
const listed = 50
/** Not counted: for the compilers, the pools and the caches of both. */
const warmUps = 1_000
const openCapturesMax = "1000000"

/**
 * The API against a bare Express handler that checks the same token and runs the same SQL: two processes of
 * their own, a database each on one Postgres, loaded by this process over connections that are kept alive.
 * Nothing else runs: no dispatcher numbers the events, no worker takes the operations.
 */
export async function benchApi(): Promise<void> {
  using place = scratch("api")
  await using resources = new AsyncDisposableStack()
  const password = randomBytes(16).toString("hex")
  const postgres = resources.use(
    await startEmbeddedPostgres({ dataDir: join(place.dir, "postgres"), password }),
  )
  const ours = await startServer(resources, { databaseUrl: postgres.url, ours: true })
  const bareUrl = await ownDatabase(ours.db, postgres.url, "bare")
  const theirs = await startServer(resources, { databaseUrl: bareUrl, ours: false })
  await benchCreate(ours, theirs)
  await Promise.all([seedSnapshots(ours.db), seedSnapshots(theirs.db)])
  await benchList(ours, theirs)
}

async function benchCreate(ours: Server, theirs: Server): Promise<void> {
  const oneRound = async (server: Server): Promise<{ us: number; perSecond: number }> => {
    const make = (): LoadRequest => create(server)
    const { ms } = await loadServer(server, { ...one, make })
    const { perSecond } = await loadServer(server, { ...saturation, make })
    return { us: 1_000 * median(ms), perSecond }
  }
  console.log(
    `\ncreate request; medians of ${one.requests} requests per round over one connection and the rate of ${saturation.requests} over ${saturation.connections}`,
  )
  for (const server of [ours, theirs])
    await loadServer(server, { ...saturation, requests: warmUps, make: () => create(server) })
  const times = await byTurns(
    rounds,
    () => oneRound(ours),
    () => oneRound(theirs),
  )
  printComparisons([
    compare("create, µs", times, ({ us }) => us, "≤ 1.3"),
    compare("create at saturation, requests/s", times, ({ perSecond }) => perSecond, "≥ 0.75"),
  ])
}

async function benchList(ours: Server, theirs: Server): Promise<void> {
  console.log(
    `\nlist of ${listed} of 100,000 snapshots by two tags; medians of ${one.requests} requests per round over one connection`,
  )
  const comparisons: Comparison[] = []
  for (const [having, tags] of Object.entries(tagPairs)) {
    const query = Object.entries(tags).map(([key, value]): [string, string] => [`tags[${key}]`, value])
    const ourQuery = new URLSearchParams([...query, ["limit", String(listed)]])
    const theirQuery = new URLSearchParams({ tags: JSON.stringify(tags), limit: String(listed) })
    const oneRound = async (
      server: Server,
      asked: URLSearchParams,
      requests = one.requests,
    ): Promise<number> => {
      const path = `/snapshots?${asked.toString()}`
      const make = (): LoadRequest => ({ method: "GET", path, status: 200 })
      const { ms } = await loadServer(server, { connections: 1, requests, make })
      return 1_000 * median(ms)
    }
    await oneRound(ours, ourQuery, warmUps)
    await oneRound(theirs, theirQuery, warmUps)
    const times = await byTurns(
      rounds,
      () => oneRound(ours, ourQuery),
      () => oneRound(theirs, theirQuery),
    )
    comparisons.push(compare(`two tags that ${having} have, µs`, times, (us) => us, "≤ 1.2"))
  }
  printComparisons(comparisons)
}

interface Server {
  readonly db: OwnedDatabase
  readonly url: string
  readonly token: string
  readonly instanceId: string
}

async function startServer(
  resources: AsyncDisposableStack,
  { databaseUrl, ours }: { databaseUrl: string; ours: boolean },
): Promise<Server> {
  const db = openDatabase({ url: databaseUrl, onIdleError: () => undefined })
  resources.defer(() => db.destroy())
  await migrate(db)
  const host = { name: "bench", pool: "bench" }
  const hypervisors = { qemu: qemuCapabilities({ version: "0" }, { live_capture: false }) }
  const beat = (): Promise<void> => heartbeat(db, { ...host, hostId: "bench", bootId: "boot", hypervisors })
  await beat()
  // A host that is not heard of takes nothing on.
  const beats = setInterval(() => void beat(), 5_000)
  resources.defer(() => clearInterval(beats))
  const launch = { image: "demo" }
  const what = { name: "vm", image: "demo", hypervisor: "qemu", host: host.name, launch } as const
  const { id } = await createInstance(db, { ...what, vcpus: 1, memoryMib: 64 })
  await advanceInstance(db, id, "Running")
  const secret = randomBytes(32).toString("hex")
  const env = {
    DATABASE_URL: databaseUrl,
    JWT_SECRET: secret,
    SECRETS_KEY: secret,
    PORT: "0",
    CALLER_REQUESTS_PER_SECOND: "0",
    // No worker captures what is requested here.
    OPEN_CAPTURES_PER_INSTANCE: openCapturesMax,
    OPEN_CAPTURES_PER_HOST: openCapturesMax,
    OPEN_CAPTURES_PER_CALLER: openCapturesMax,
  }
  const instance = { id, name: what.name, host: host.name, pool: host.pool }
  const program: Program = resources.use(
    ours
      ? await startProgram("api", env)
      : await startScript("bench/src/api/bare-api.ts", { ...env, INSTANCE: JSON.stringify(instance) }),
  )
  const { url } = await program.logged(({ msg }) => msg === "listening")
  return { db, url: String(url), token: await mintToken(secret, 3_600), instanceId: id }
}

async function ownDatabase(db: OwnedDatabase, url: string, name: string): Promise<string> {
  await sql`create database ${sql.id(name)}`.execute(db)
  const changed = new URL(url)
  changed.pathname = `/${name}`
  return changed.href
}

function loadServer(server: Server, what: Omit<Load, "url" | "token">): ReturnType<typeof load> {
  return load({ ...what, url: server.url, token: server.token })
}

let created = 0

function create({ instanceId }: Server): LoadRequest {
  const body = { kind: "Standby", name: `nightly-${created++}`, tags: { env: "prod", team: "storage" } }
  return { method: "POST", path: `/instances/${instanceId}/snapshots`, body, status: 202 }
}

function compare<T>(
  what: string,
  { ours, theirs }: { ours: readonly T[]; theirs: readonly T[] },
  value: (measured: T) => number,
  target: string,
): Comparison {
  return { what, ours: ours.map(value), theirs: theirs.map(value), target }
}
