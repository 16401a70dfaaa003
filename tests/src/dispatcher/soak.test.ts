import { spawn, type ChildProcess } from "node:child_process"
import { once } from "node:events"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { fileURLToPath } from "node:url"
import type { OwnedDatabase } from "@stillframe/db/client"
import { appendSnapshotEvent, listEvents } from "@stillframe/db/events/events"
import { perWebhookMax } from "@stillframe/db/webhooks/deliveries"
import { deleteWebhook } from "@stillframe/db/webhooks/webhooks"
import { testDatabase } from "@stillframe/testing/database"
import { patienceMs } from "@stillframe/testing/patience"
import { sql } from "kysely"
import { expect, test } from "vitest"
import { snapshotRecord } from "../events/records.ts"
import { webhookTo } from "./deliveries.ts"
import { secretsKey } from "./dispatchers.ts"

// The whole size takes many minutes: SOAK=1.
const whole = process.env["SOAK"] === "1"
const size = whole
  ? { events: 10_000, webhooks: 50, kills: 20, timeoutMs: 1_800_000 }
  : { events: 300, webhooks: 10, kills: 3, timeoutMs: patienceMs }

const dispatchersMax = 2
const main = fileURLToPath(import.meta.resolve("@stillframe/dispatcher/main"))

interface CountingReceiver extends AsyncDisposable {
  readonly url: string
  requests: number
  /** Ids of events by path, as often as they came. */
  readonly ids: Map<string, string[]>
}

async function countingReceiver(): Promise<CountingReceiver> {
  const server = createServer((request, response) => {
    request.resume().on("end", () => {
      response.writeHead(204).end()
      receiver.requests += 1
      const path = request.url ?? ""
      const id = String(request.headers["webhook-id"])
      const ids = receiver.ids.get(path)
      if (ids === undefined) receiver.ids.set(path, [id])
      else ids.push(id)
    })
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const receiver: CountingReceiver = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests: 0,
    ids: new Map(),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, "close")
    },
  }
  return receiver
}

function startProcess(databaseUrl: string): ChildProcess {
  const cache = process.env["NODE_COMPILE_CACHE"]
  const env = {
    DATABASE_URL: databaseUrl,
    SECRETS_KEY: secretsKey,
    WEBHOOK_ALLOWED_CIDRS: "127.0.0.0/8",
    LOG_LEVEL: "fatal",
    ...(cache !== undefined && { NODE_COMPILE_CACHE: cache }),
  }
  return spawn(process.execPath, [main], { env, stdio: "ignore" })
}

async function end(child: ChildProcess, signal: "SIGKILL" | "SIGTERM"): Promise<void> {
  const ended = once(child, "exit")
  child.kill(signal)
  await ended
}

/**
 * Everybody's, as nobody knows whose are those of the dead: what is in flight now may come twice. In the
 * order in which outcomes are written, so that nobody meets in a deadlock.
 */
async function endClaims(db: OwnedDatabase): Promise<void> {
  await sql`
    update deliveries set claimed_until = clock()
    where id in (select id from deliveries where claimed_until > clock() order by id for update)`.execute(db)
}

/** Returns the ids in their order. */
async function appendAll(db: OwnedDatabase): Promise<string[]> {
  const ids: string[] = []
  while (ids.length < size.events) {
    ids.push(await appendSnapshotEvent(db, "snapshot.completed", snapshotRecord()))
  }
  return ids
}

/** Reads the feed as a client does, while it is written: after the last one that was seen. */
async function follow(db: OwnedDatabase): Promise<{ id: string; sequence: number }[]> {
  const seen: { id: string; sequence: number }[] = []
  const readOn = async (): Promise<number> => {
    const page = await listEvents(db, { after: seen.at(-1)?.sequence ?? 0, limit: 1_000 })
    seen.push(...page.map(({ id, sequence }) => ({ id, sequence })))
    return seen.length
  }
  await expect.poll(readOn, { timeout: size.timeoutMs, interval: 50 }).toBeGreaterThanOrEqual(size.events)
  return seen
}

test(
  `${size.events} events reach ${size.webhooks} webhooks whoever is killed`,
  async () => {
    await using database = await testDatabase()
    await using receiver = await countingReceiver()
    const { db } = database
    const kept = Array.from({ length: size.webhooks }, (_, n) => `/kept/${n}`)
    for (const path of kept) await webhookTo(db, `${receiver.url}${path}`)
    const deleted = await webhookTo(db, `${receiver.url}/deleted`)
    const children: ChildProcess[] = []
    await using stack = new AsyncDisposableStack()
    stack.defer(async () => {
      await Promise.all(children.map((child) => end(child, "SIGTERM")))
    })
    const start = (): void => void children.push(startProcess(database.url))
    while (children.length < dispatchersMax) start()
    const written = Promise.all([appendAll(db), follow(db)])
    const total = size.events * size.webhooks
    const begun = performance.now()
    const come = async (count: number): Promise<void> => {
      await expect.poll(() => receiver.requests, { timeout: size.timeoutMs }).toBeGreaterThanOrEqual(count)
    }
    const toDeleted = (): number => receiver.ids.get("/deleted")?.length ?? 0

    await come(total * 0.05)
    await deleteWebhook(db, deleted.id)
    const atDeletion = toDeleted()
    for (let killed = 1; killed <= size.kills; killed++) {
      // The next one starts meanwhile, and is not the one that is killed.
      start()
      await come((total * 0.9 * (killed - Math.random())) / size.kills)
      const [victim] = children.splice(Math.floor(Math.random() * dispatchersMax), 1)
      await end(victim!, "SIGKILL")
      await endClaims(db)
    }
    const [appended, feed] = await written
    const pending = () =>
      db.selectFrom("deliveries").select("id").where("state", "=", "pending").limit(1).execute()
    await expect.poll(pending, { timeout: size.timeoutMs, interval: 100 }).toEqual([])

    expect(feed).toEqual(appended.map((id, index) => ({ id, sequence: index + 1 })))
    for (const path of kept)
      expect([path, new Set(receiver.ids.get(path))]).toEqual([path, new Set(appended)])
    // What was in flight when somebody was killed comes again, and nothing else does.
    const repeated = kept.flatMap((path) => receiver.ids.get(path) ?? []).length - total
    expect(repeated).toBeLessThanOrEqual(size.kills * size.webhooks * perWebhookMax)
    // What was in flight at the deletion may still come; much more was waiting.
    const afterDeletion = toDeleted() - atDeletion
    expect(afterDeletion).toBeLessThanOrEqual(perWebhookMax)
    expect(size.events - atDeletion).toBeGreaterThan(2 * perWebhookMax)
    if (!whole) return
    const seconds = (performance.now() - begun) / 1_000
    console.log({ ...size, requests: receiver.requests, repeated, seconds, afterDeletion })
  },
  size.timeoutMs,
)
