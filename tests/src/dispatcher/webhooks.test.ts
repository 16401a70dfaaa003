import {
  appendInstanceEvent,
  appendSnapshotEvent,
  listEvents,
  numberEvents,
} from "@stillframe/db/events/events"
import { deleteWebhook, type NewWebhook } from "@stillframe/db/webhooks/webhooks"
import { testDatabase } from "@stillframe/testing/database"
import { startReceiver } from "@stillframe/testing/receiver"
import { expect, test } from "vitest"
import { instanceRecord, snapshotRecord } from "../events/records.ts"
import { delivery, secret, verified, webhookTo } from "./deliveries.ts"
import { capturedLog, secretsKey, testDispatcher } from "./dispatchers.ts"

test("a delivery carries the event as the feed shows it, with a signature over its exact bytes", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  await webhookTo(db, receiver.url)
  await appendSnapshotEvent(db, "snapshot.completed", snapshotRecord({ name: "nächtlich" }))

  await using _dispatcher = await testDispatcher({ databaseUrl })
  const [request] = await receiver.received(1)

  const [event] = await listEvents(db, { after: 0, limit: 10 })
  expect(verified(request!)).toEqual(event)
  expect(request!.headers).toMatchObject({ "webhook-id": event!.id, "content-type": "application/json" })
  expect(() => verified({ ...request!, body: request!.body.replace("web", "wen") })).toThrow(/signature/)
  await expect
    .poll(() => delivery(db))
    .toMatchObject({ state: "delivered", attempt: 1, response_status: 204 })
})

test("a receiver that answers 500 gets the same event again later, under the same id", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  await webhookTo(db, receiver.url)
  await appendSnapshotEvent(db, "snapshot.completed", snapshotRecord())
  receiver.answer({ status: 500 })

  const first = await testDispatcher({ databaseUrl })
  await expect.poll(() => delivery(db)).toMatchObject({ state: "pending", attempt: 1, response_status: 500 })
  await first[Symbol.asyncDispose]()
  await using _later = await testDispatcher({ databaseUrl, clockOffset: "10 seconds" })

  const [failed, repeated] = await receiver.received(2)
  expect(repeated!.body).toBe(failed!.body)
  expect(repeated!.headers["webhook-id"]).toBe(failed!.headers["webhook-id"])
  await expect
    .poll(() => delivery(db))
    .toEqual({ state: "delivered", attempt: 2, response_status: 204, error: null })
  expect(receiver.requests.length).toBe(2)
})

test("a delivery is given up after its last try", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  await webhookTo(db, receiver.url)
  await appendSnapshotEvent(db, "snapshot.completed", snapshotRecord())
  await numberEvents(db)
  await db.updateTable("deliveries").set({ attempt: 7 }).execute()
  receiver.answer({ status: 503 })

  await using _dispatcher = await testDispatcher({ databaseUrl })

  await expect.poll(() => delivery(db)).toMatchObject({ state: "failed", attempt: 8, error: "answered 503" })
})

test("a redirect is a failure, and nobody follows it", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  await using elsewhere = await startReceiver()
  const { db, url: databaseUrl } = database
  await webhookTo(db, receiver.url)
  await appendSnapshotEvent(db, "snapshot.completed", snapshotRecord())
  receiver.answer({ status: 307, headers: { location: elsewhere.url } })

  await using _dispatcher = await testDispatcher({ databaseUrl })

  await expect.poll(() => delivery(db)).toMatchObject({ state: "pending", response_status: 307 })
  expect(elsewhere.requests).toEqual([])
})

test.each(["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])(
  "loopback as %s is refused unless it is allowed, and the delivery says so",
  async (hostname) => {
    await using database = await testDatabase()
    await using receiver = await startReceiver()
    const { db, url: databaseUrl } = database
    await webhookTo(db, receiver.url.replace("127.0.0.1", hostname))
    await appendSnapshotEvent(db, "snapshot.completed", snapshotRecord())
    const nothingAllowed = { allowedCidrs: [], stackPorts: [] }

    const refusing = await testDispatcher({ databaseUrl, webhooks: nothingAllowed })
    await expect
      .poll(() => delivery(db))
      .toMatchObject({ state: "pending", error: expect.stringContaining("WEBHOOK_ALLOWED_CIDRS") as string })
    await refusing[Symbol.asyncDispose]()
    expect(receiver.requests).toEqual([])

    await using _allowing = await testDispatcher({ databaseUrl, clockOffset: "10 seconds" })
    await receiver.received(1)
  },
)

test("a port of the stack's own is refused also where the address is allowed", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  await webhookTo(db, receiver.url)
  await appendSnapshotEvent(db, "snapshot.completed", snapshotRecord())
  const webhooks = { allowedCidrs: ["127.0.0.0/8"], stackPorts: [receiver.port] }

  await using _dispatcher = await testDispatcher({ databaseUrl, webhooks })

  const error = expect.stringContaining(`port ${receiver.port}`) as string
  await expect.poll(() => delivery(db)).toMatchObject({ state: "pending", error })
  expect(receiver.requests).toEqual([])
})

test("a webhook gets what its filters let through", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  const nightly = snapshotRecord({ tags: { plan: "nightly", team: "a" } })
  const plain = snapshotRecord()
  const instance = instanceRecord({ id: plain.source_instance_id })
  const filters: Record<string, Partial<NewWebhook>> = {
    all: {},
    completed: { eventTypes: ["snapshot.completed"] },
    snapshots: { eventTypes: ["snapshot.*"] },
    ofInstance: { instanceIds: [instance.id] },
    nightly: { tags: { plan: "nightly" } },
    ofBoth: { tags: { plan: "nightly", team: "a" } },
    ofOne: { tags: { plan: "nightly", team: "b" } },
    none: { eventTypes: ["snapshot.created"], tags: { plan: "nightly" } },
    off: { enabled: false },
  }
  for (const [path, filter] of Object.entries(filters)) await webhookTo(db, `${receiver.url}/${path}`, filter)
  await appendInstanceEvent(db, "instance.created", instance)
  await appendSnapshotEvent(db, "snapshot.created", plain)
  await appendSnapshotEvent(db, "snapshot.completed", nightly)

  await using _dispatcher = await testDispatcher({ databaseUrl })
  await receiver.received(10)
  const pending = () => db.selectFrom("deliveries").select("id").where("state", "=", "pending").execute()
  await expect.poll(pending).toEqual([])

  const got = Map.groupBy(receiver.requests, ({ path }) => path.split("/").at(-1))
  const sequences = (name: string) =>
    (got.get(name) ?? [])
      .map((request) => (verified(request) as { sequence: number }).sequence)
      .sort((a, b) => a - b)
  expect(Object.fromEntries(Object.keys(filters).map((name) => [name, sequences(name)]))).toEqual({
    all: [1, 2, 3],
    completed: [3],
    snapshots: [2, 3],
    ofInstance: [1, 2],
    nightly: [3],
    ofBoth: [3],
    ofOne: [],
    none: [],
    off: [],
  })
})

test("a webhook that was deleted gets nothing more", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  const deleted = await webhookTo(db, `${receiver.url}/deleted`)
  await webhookTo(db, `${receiver.url}/kept`)
  await appendSnapshotEvent(db, "snapshot.completed", snapshotRecord())
  await numberEvents(db)

  await deleteWebhook(db, deleted.id)
  await using _dispatcher = await testDispatcher({ databaseUrl })

  await expect.poll(() => delivery(db)).toMatchObject({ state: "delivered" })
  expect(receiver.requests.map(({ path }) => path)).toEqual(["/hook/kept"])
})

test("no log line ever holds a secret or a webhook's URL", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  const { log, lines } = capturedLog()
  receiver.answer({ status: 500 })
  await webhookTo(db, `${receiver.url}?key=hidden`)
  await appendSnapshotEvent(db, "snapshot.completed", snapshotRecord())
  await appendSnapshotEvent(db, "snapshot.completed", snapshotRecord())

  const dispatcher = await testDispatcher({ databaseUrl }, log)
  await receiver.received(2)
  await expect.poll(() => lines.filter((line) => line.includes("deliver")).length).toBe(2)
  await dispatcher[Symbol.asyncDispose]()
  await appendSnapshotEvent(db, "snapshot.completed", snapshotRecord())
  await using _wrongKey = await testDispatcher(
    { databaseUrl, secretsKey: "another key that is also long enough" },
    log,
  )
  await expect.poll(() => lines.join("")).toContain("can't be decrypted")

  const text = lines.join("")
  for (const hidden of [secret, secret.slice("whsec_".length), "hidden", "/hook", secretsKey]) {
    expect(text).not.toContain(hidden)
  }
})
