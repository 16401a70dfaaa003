import { randomBytes } from "node:crypto"
import { once } from "node:events"
import { readFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { inTransaction, openDatabase, type OwnedDatabase } from "@stillframe/db/client"
import { startEmbeddedPostgres } from "@stillframe/db/embedded"
import { appendSnapshotEvent, listEvents } from "@stillframe/db/events"
import { migrate } from "@stillframe/db/migrate"
import { openWaker, type Waker } from "@stillframe/db/wake"
import { createWebhook, deleteWebhook } from "@stillframe/db/webhooks"
import type { EventEnvelope } from "@stillframe/domain/events"
import { createId } from "@stillframe/domain/ids"
import type { SnapshotRecord } from "@stillframe/domain/snapshot"
import { sealSecret } from "@stillframe/runtime/secrets"
import { sql } from "kysely"
import { byTurns, median, printComparisons, printTimes, wallClock } from "./measure.ts"
import { startProgram, startScript, type Program } from "./program.ts"
import { scratch } from "./scratch.ts"

const latency = { rounds: 9, events: 300, perSecond: 100, warmUp: 200 }
/** 100,000 deliveries after the warm-up, which has as many as a round. */
const rate: Rate = { rounds: 10, events: 1_000, warmUps: 2, path: "/" }
/** What most receivers are like: then both sides wait, and it counts that all places are taken. */
const slowRate: Rate = { rounds: 5, events: 200, warmUps: 1, path: "/slow/" }
const webhooks = 10
/** As many attempts at once as the dispatcher makes. */
const concurrency = 32
const waitMsMax = 120_000

/**
 * The dispatcher against a bare loop that POSTs: how soon an event arrives, how many are delivered in a second, and whether
 * the dispatcher's memory stays where it is. Both are processes of their own on one Postgres, with a database each.
 */
export async function benchWebhooks(): Promise<void> {
  using place = scratch("webhooks")
  await using resources = new AsyncDisposableStack()
  const password = randomBytes(16).toString("hex")
  const postgres = resources.use(
    await startEmbeddedPostgres({ dataDir: join(place.dir, "postgres"), password }),
  )
  const sides = await startSides(resources, postgres.url)
  await benchLatency(sides)
  await benchRates(sides, resources)
}

interface Sides {
  readonly db: OwnedDatabase
  readonly waker: Waker
  readonly dispatcher: Program
  readonly bareDb: OwnedDatabase
  readonly sealed: Buffer
}

async function startSides(resources: AsyncDisposableStack, url: string): Promise<Sides> {
  const db = open(resources, url)
  await migrate(db)
  await sql`create database bare`.execute(db)
  const bareUrl = new URL(url)
  bareUrl.pathname = "/bare"
  const bareDb = open(resources, bareUrl.href)
  await sql`create table bare_events (id text primary key, url text, body text)`.execute(bareDb)
  const waker = await openWaker({ url, onError: () => undefined })
  resources.defer(() => waker.close())
  const secret = `whsec_${randomBytes(32).toString("base64")}`
  const key = randomBytes(32).toString("hex")
  const env = { DATABASE_URL: url, SECRETS_KEY: key, WEBHOOK_ALLOWED_CIDRS: "127.0.0.0/8" }
  const dispatcher = resources.use(await startProgram("dispatcher", env))
  const bareEnv = { DATABASE_URL: bareUrl.href, SECRET: secret }
  resources.use(await startScript("bench/src/webhooks-bare.ts", bareEnv))
  return { db, waker, dispatcher, bareDb, sealed: sealSecret(key, secret) }
}

function open(resources: AsyncDisposableStack, url: string): OwnedDatabase {
  const db = openDatabase({ url, onIdleError: () => undefined })
  resources.defer(() => db.destroy())
  return db
}

async function benchLatency({ db, waker, bareDb, sealed }: Sides): Promise<void> {
  await using receiver = await startTimer()
  const hook = await createWebhook(db, { url: receiver.url, secret: sealed })
  const ours = async (): Promise<string> => {
    const subject = snapshot()
    await appendSnapshotEvent(db, "snapshot.completed", subject)
    waker.wake("events")
    return subject.id
  }
  const theirs = async (): Promise<string> => {
    const { id } = snapshot()
    const body = JSON.stringify({ id, data: snapshot() })
    // As somebody would write it who needs nothing else: the wake-up comes with the commit.
    await sql`
      with event as (insert into bare_events values (${id}, ${receiver.url}, ${body}) returning id)
      select pg_notify('bare_event', id) from event`.execute(bareDb)
    return id
  }
  console.log(
    `\ncommit of an event → first byte at the receiver, at ${latency.perSecond} events/s; medians and 99th percentiles of ${latency.events} per round`,
  )
  await timesOf(receiver, ours, latency.warmUp)
  await timesOf(receiver, theirs, latency.warmUp)
  const times = await byTurns(
    latency.rounds,
    () => timesOf(receiver, ours, latency.events),
    () => timesOf(receiver, theirs, latency.events),
  )
  await deleteWebhook(db, hook.id)
  const inUs = (rounds: readonly number[][]): number[] => rounds.map((ms) => 1_000 * median(ms))
  printComparisons([{ what: "p50, µs", ours: inUs(times.ours), theirs: inUs(times.theirs), target: "≤ 1.5" }])
  printTimes([
    { what: "p99, ours", ms: times.ours.map(p99), target: "≤ 250" },
    { what: "p99, theirs", ms: times.theirs.map(p99) },
  ])
}

/** Milliseconds from each event's commit to its arrival, at a steady rate. */
async function timesOf(receiver: Timer, happen: () => Promise<string>, events: number): Promise<number[]> {
  const startedAt = performance.now()
  const commits: Promise<{ id: string; at: number }>[] = []
  for (let n = 0; n < events; n++) {
    await delay(Math.max(0, startedAt + (n * 1_000) / latency.perSecond - performance.now()))
    commits.push(happen().then((id) => ({ id, at: performance.now() })))
  }
  const committed = await Promise.all(commits)
  return Promise.all(committed.map(async ({ id, at }) => (await receiver.arrived(id)) - at))
}

interface Timer extends AsyncDisposable {
  readonly url: string
  /** When the first byte of the delivery for this subject was seen, by this process's clock. */
  arrived(subjectId: string): Promise<number>
}

async function startTimer(): Promise<Timer> {
  const arrivals = new Map<string, PromiseWithResolvers<number>>()
  const slot = (id: string): PromiseWithResolvers<number> => {
    const known = arrivals.get(id) ?? Promise.withResolvers<number>()
    arrivals.set(id, known)
    return known
  }
  const server = createServer((request, response) => {
    const at = performance.now()
    let body = ""
    request.setEncoding("utf8").on("data", (text: string) => (body += text))
    request.on("end", () => {
      response.writeHead(204).end()
      const { id, subject } = JSON.parse(body) as Partial<EventEnvelope>
      slot(subject?.id ?? id ?? "").resolve(at)
    })
  })
  server.keepAliveTimeout = waitMsMax
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    arrived: (id) => slot(id).promise,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, "close")
    },
  }
}

interface Rate {
  readonly rounds: number
  /** In each round, to each webhook. */
  readonly events: number
  readonly warmUps: number
  /** Of the receivers. */
  readonly path: string
}

async function benchRates(sides: Sides, resources: AsyncDisposableStack): Promise<void> {
  const script = resources.use(await startScript("bench/src/webhooks-receiver.ts", {}))
  const receiver = String((await script.logged(({ msg }) => msg === "listening"))["url"])
  console.log(
    `\none dispatcher, ${rate.events} events to ${webhooks} webhooks per round, against a loop of signed POSTs, ${concurrency} at once`,
  )
  const atOnce = await ratesOf(sides, receiver, rate)
  const slow = await ratesOf(sides, receiver, slowRate)
  printComparisons([
    { what: "deliveries/s", ...atOnce, target: "≥ 0.7" },
    { what: "to receivers that take 20 ms", ...slow, target: "" },
  ])
  printMemory(atOnce.resident)
}

async function ratesOf(sides: Sides, receiver: string, { rounds, events, warmUps, path }: Rate) {
  const { db, waker, dispatcher, bareDb, sealed } = sides
  const hooks: string[] = []
  for (let n = 0; n < webhooks; n++)
    hooks.push((await createWebhook(db, { url: `${receiver}${path}${n}`, secret: sealed })).id)
  const [event] = await listEvents(db, { after: 0, limit: 1 })
  const deliveries = events * webhooks
  const run = { url: `${receiver}${path}`, body: JSON.stringify(event), deliveries, concurrency }
  const resident: number[] = []
  const ours = async (): Promise<number> => {
    await inTransaction(db, async (tx) => {
      for (let n = 0; n < events; n++) await appendSnapshotEvent(tx, "snapshot.completed", snapshot())
    })
    waker.wake("events")
    const perSecond = await rateAt(receiver, deliveries)
    resident.push(residentMebibytes(dispatcher.pid))
    return perSecond
  }
  const theirs = async (): Promise<number> => {
    await sql`select pg_notify('bare_run', ${JSON.stringify(run)})`.execute(bareDb)
    return rateAt(receiver, deliveries)
  }
  for (let n = 0; n < warmUps; n++) {
    await ours()
    await theirs()
  }
  resident.length = 0
  const times = await byTurns(rounds, ours, theirs)
  for (const id of hooks) await deleteWebhook(db, id)
  return { ...times, resident }
}

/** Of one round: from the first arrival to the last. */
async function rateAt(receiver: string, deliveries: number): Promise<number> {
  const deadline = wallClock() + waitMsMax
  while (wallClock() < deadline) {
    const response = await fetch(`${receiver}/${deliveries}`)
    const { count, firstAt, lastAt } = (await response.json()) as Record<
      "count" | "firstAt" | "lastAt",
      number
    >
    if (count > deliveries) throw new Error(`${count} deliveries came, not ${deliveries}`)
    if (count === deliveries) return (1_000 * count) / (lastAt - firstAt)
    await delay(pollMs)
  }
  throw new Error(`not ${deliveries} deliveries within ${waitMsMax / 1_000} s`)
}

const pollMs = 50

function printMemory(mebibytes: readonly number[]): void {
  const half = mebibytes.length / 2
  const [first, second] = [mebibytes.slice(0, half), mebibytes.slice(half)].map(median)
  console.log(
    `the dispatcher's resident memory after every ${rate.events * webhooks} deliveries, MiB: ${mebibytes.map(Math.round).join(" ")}`,
  )
  console.log(
    `medians of the first and the second half: ${Math.round(first ?? 0)} and ${Math.round(second ?? 0)} (flat: ≤ 1.1 times)`,
  )
}

function residentMebibytes(pid: number): number {
  const kibibytes = /VmRSS:\s*(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]
  return Number(kibibytes) / 1_024
}

function p99(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length * 0.99)] ?? Number.NaN
}

/** As a snapshot is that is done, with the members that most have. */
function snapshot(): SnapshotRecord {
  const now = new Date()
  return {
    id: createId(),
    kind: "Standby",
    status: "ready",
    name: "nightly",
    tags: { env: "prod", team: "storage" },
    source_instance_id: createId(),
    source_instance_name: "web",
    source_hypervisor: "qemu",
    compression: { enabled: true, algorithm: "zstd", level: 1 },
    compression_state: "compressed",
    compression_error: null,
    size_bytes: 88_000_000,
    uncompressed_size_bytes: 536_870_912,
    compressed_size_bytes: 87_000_000,
    stored_bytes: 88_000_000,
    progress: null,
    error_code: null,
    error_message: null,
    pause_ms: 211.5,
    created_at: now,
    captured_at: now,
    verified_at: now,
    corrupted_at: null,
  }
}
