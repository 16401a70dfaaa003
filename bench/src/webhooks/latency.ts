import { once } from "node:events"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { setTimeout as delay } from "node:timers/promises"
import { appendSnapshotEvent } from "@stillframe/db/events/events"
import { createWebhook, deleteWebhook } from "@stillframe/db/webhooks/webhooks"
import type { EventEnvelope } from "@stillframe/domain/events"
import { sql } from "kysely"
import { byTurns, median, printComparisons, printTimes } from "../measure.ts"
import { finishedSnapshot } from "./finished-snapshot.ts"
import type { Sides } from "./sides.ts"

const latency = { rounds: 9, events: 300, perSecond: 100, warmUp: 200 }
const keepAliveMs = 120_000

/** How soon an event arrives. */
export async function benchLatency({ db, waker, bareDb, sealed }: Sides): Promise<void> {
  await using receiver = await startTimer()
  const hook = await createWebhook(db, { url: receiver.url, secret: sealed })
  const ours = async (): Promise<string> => {
    const subject = finishedSnapshot()
    await appendSnapshotEvent(db, "snapshot.completed", subject)
    waker.wake("events")
    return subject.id
  }
  const theirs = async (): Promise<string> => {
    const { id } = finishedSnapshot()
    const body = JSON.stringify({ id, data: finishedSnapshot() })
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
  server.keepAliveTimeout = keepAliveMs
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

function p99(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length * 0.99)] ?? Number.NaN
}
