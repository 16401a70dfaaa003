import { spawn, type ChildProcess } from "node:child_process"
import { once } from "node:events"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { fileURLToPath } from "node:url"
import type { OwnedDatabase } from "@stillframe/db/client"
import { perWebhookMax } from "@stillframe/db/deliveries"
import { appendSnapshotEvent, listEvents } from "@stillframe/db/events"
import { deleteWebhook } from "@stillframe/db/webhooks"
import { testDatabase } from "@stillframe/testing/database"
import { expect, test } from "vitest"
import { snapshotRecord } from "../events/records.ts"
import { webhookTo } from "./deliveries.ts"
import { secretsKey } from "./dispatchers.ts"

// The whole size takes many minutes: SOAK=1.
const whole = process.env["SOAK"] === "1"
const size = whole
  ? { events: 10_000, webhooks: 50, kills: 20, timeoutMs: 1_800_000 }
  : { events: 300, webhooks: 10, kills: 3, timeoutMs: 60_000 }

const dispatchersMax = 2
const main = fileURLToPath(import.meta.resolve("@stillframe/dispatcher/main"))

interface CountingReceiver extends AsyncDisposable {
  readonly url: string
  requests: number
  /** Ids of events by path. */
  readonly seen: Map<string, Set<string>>
}

async function countingReceiver(): Promise<CountingReceiver> {
  const server = createServer((request, response) => {
    request.resume().on("end", () => {
      response.writeHead(204).end()
      receiver.requests += 1
      const path = request.url ?? ""
      const ids = receiver.seen.get(path) ?? new Set()
      receiver.seen.set(path, ids.add(String(request.headers["webhook-id"])))
    })
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const receiver: CountingReceiver = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests: 0,
    seen: new Map(),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, "close")
    },
  }
  return receiver
}

/** Its clock is ahead, so that it finds the claims of those that were killed to be over. */
function startProcess(databaseUrl: string, minutesAhead: number): ChildProcess {
  const url = new URL(databaseUrl)
  url.searchParams.set("options", `-c stillframe.clock_offset=${minutesAhead}min`)
  const env = {
    DATABASE_URL: url.href,
    SECRETS_KEY: secretsKey,
    WEBHOOK_ALLOWED_CIDRS: "127.0.0.0/8",
    LOG_LEVEL: "fatal",
  }
  return spawn(process.execPath, [main], { env, stdio: "ignore" })
}

async function end(child: ChildProcess, signal: "SIGKILL" | "SIGTERM"): Promise<void> {
  const ended = once(child, "exit")
  child.kill(signal)
  await ended
}

async function appendAll(db: OwnedDatabase): Promise<void> {
  for (let i = 0; i < size.events; i++) {
    await appendSnapshotEvent(db, "snapshot.completed", snapshotRecord())
  }
}

async function wholeFeed(db: OwnedDatabase): Promise<{ id: string; sequence: number }[]> {
  const feed: { id: string; sequence: number }[] = []
  for (;;) {
    const page = await listEvents(db, { after: feed.length, limit: 1_000 })
    feed.push(...page.map(({ id, sequence }) => ({ id, sequence })))
    if (page.length === 0) return feed
  }
}

test(
  `${size.events} events reach ${size.webhooks} webhooks whoever is killed`,
  async () => {
    await using database = await testDatabase()
    await using receiver = await countingReceiver()
    const { db } = database
    for (let i = 0; i < size.webhooks; i++) await webhookTo(db, `${receiver.url}/kept/${i}`)
    const deleted = await webhookTo(db, `${receiver.url}/deleted`)
    const children: ChildProcess[] = []
    await using stack = new AsyncDisposableStack()
    stack.defer(async () => {
      await Promise.all(children.map((child) => end(child, "SIGTERM")))
    })
    while (children.length < dispatchersMax) children.push(startProcess(database.url, 0))
    const appending = appendAll(db)
    const total = size.events * size.webhooks
    const begun = performance.now()
    const come = async (count: number): Promise<void> => {
      await expect.poll(() => receiver.requests, { timeout: size.timeoutMs }).toBeGreaterThanOrEqual(count)
    }

    await come(total * 0.05)
    await deleteWebhook(db, deleted.id)
    const atDeletion = receiver.seen.get("/deleted")?.size ?? 0
    for (let killed = 1; killed <= size.kills; killed++) {
      await come((total * 0.9 * (killed - Math.random())) / size.kills)
      const [victim] = children.splice(Math.floor(Math.random() * children.length), 1)
      await end(victim!, "SIGKILL")
      children.push(startProcess(database.url, killed))
    }
    await appending
    const pending = () =>
      db.selectFrom("deliveries").select("id").where("state", "=", "pending").limit(1).execute()
    await expect.poll(async () => (await wholeFeed(db)).length, { timeout: size.timeoutMs }).toBe(size.events)
    await expect.poll(pending, { timeout: size.timeoutMs, interval: 100 }).toEqual([])

    const feed = await wholeFeed(db)
    expect(feed.map(({ sequence }) => sequence)).toEqual(feed.map((_event, i) => i + 1))
    for (let i = 0; i < size.webhooks; i++) {
      expect(feed.filter(({ id }) => receiver.seen.get(`/kept/${i}`)?.has(id) !== true)).toEqual([])
    }
    // What was in flight may still come.
    const afterDeletion = (receiver.seen.get("/deleted")?.size ?? 0) - atDeletion
    expect(afterDeletion).toBeLessThanOrEqual(perWebhookMax)
    if (!whole) return
    const seconds = (performance.now() - begun) / 1_000
    console.log({
      ...size,
      requests: receiver.requests,
      repeated: receiver.requests - total,
      seconds,
      afterDeletion,
    })
  },
  size.timeoutMs,
)
