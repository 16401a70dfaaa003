import { inTransaction, openDatabase, type OwnedDatabase } from "@stillframe/db/client"
import { openWaker } from "@stillframe/db/connection/wake"
import { createOperation, claimOperation } from "@stillframe/db/operations/operations"
import { takeUnrelayed } from "@stillframe/db/operations/relay"
import { publishOperations } from "@stillframe/dispatcher/publish"
import { sweepLostJobs } from "@stillframe/dispatcher/sweep"
import type { QueueEngine } from "@stillframe/queue/contract"
import { testDatabase } from "@stillframe/testing/database"
import { engineKinds, testQueue, type TestQueue } from "@stillframe/testing/queue-engines"
import { describe, expect, test } from "vitest"
import { endedOrWaiting } from "../events/lock-waits.ts"
import { capturedLog, testDispatcher } from "./dispatchers.ts"

const queueName = "compress.pool"

const { signal } = new AbortController()

const newOperation = (db: OwnedDatabase) => createOperation(db, { kind: "compress", queue: queueName })

function rowOf(db: OwnedDatabase, id: string) {
  return db
    .selectFrom("operations")
    .select(["state", "wake", "relayed_at"])
    .where("id", "=", id)
    .executeTakeFirstOrThrow()
}

/** What a dispatcher needs to use the same engine and database as the test. */
function sharing({ settings: { databaseUrl, redisUrl, prefix: queuePrefix } }: TestQueue) {
  return { databaseUrl, redisUrl, queuePrefix }
}

describe.each(engineKinds)("the relay on %s", (kind) => {
  test("an operation reaches its queue when its writer says so after the commit", async () => {
    await using queue = await testQueue(kind)
    const { db } = queue.database
    const seen: string[] = []
    await queue.engine.consume(queueName, {
      concurrency: 1,
      handler: (id) => Promise.resolve(void seen.push(id)),
    })
    await using _dispatcher = await testDispatcher(sharing(queue))
    const waker = await openWaker({ url: queue.settings.databaseUrl, onError: () => undefined })

    const id = await newOperation(db)
    waker.wake("operations")

    await expect.poll(() => seen).toEqual([id])
    await waker.close()
  })

  test("an operation whose wake-up was lost is found by asking", async () => {
    await using queue = await testQueue(kind)
    const seen: string[] = []
    await queue.engine.consume(queueName, {
      concurrency: 1,
      handler: (id) => Promise.resolve(void seen.push(id)),
    })
    await using _dispatcher = await testDispatcher(sharing(queue))

    const first = await newOperation(queue.database.db)
    await expect.poll(() => seen, { timeout: 5_000 }).toEqual([first])
    const second = await newOperation(queue.database.db)

    await expect.poll(() => seen, { timeout: 5_000 }).toEqual([first, second])
  })

  test("operations whose jobs a wiped queue lost are published again, the others are left alone", async () => {
    await using queue = await testQueue(kind)
    const { db } = queue.database
    const lost = await newOperation(db)
    await publishOperations(db, queue.engine, signal)
    await queue.wipe()
    await queue.engine.repair()
    const held = await newOperation(db)
    await publishOperations(db, queue.engine, signal)

    await using _later = await testDispatcher({ ...sharing(queue), clockOffset: "1 minute" })

    await expect.poll(() => rowOf(db, lost)).toMatchObject({ wake: 1, relayed_at: expect.any(Date) as Date })
    const again = { queue: queueName, id: lost, wake: 1 }
    await expect.poll(() => queue.engine.unfinished([again])).toEqual(new Set([lost]))
    expect(await rowOf(db, held)).toMatchObject({ wake: 0 })
  })

  test("an operation whose worker died goes back into the queue when its lease is over", async () => {
    await using queue = await testQueue(kind)
    const { db } = queue.database
    const id = await newOperation(db)
    await publishOperations(db, queue.engine, signal)
    await claimOperation(db, { id, worker: "a worker that died", queue: queueName })
    const seen: string[] = []

    await using _later = await testDispatcher({ ...sharing(queue), clockOffset: "1 minute" })
    await expect.poll(() => rowOf(db, id)).toMatchObject({ state: "queued", wake: 1 })
    await queue.engine.consume(queueName, {
      concurrency: 1,
      handler: (id) => Promise.resolve(void seen.push(id)),
    })

    // The job of the first wake is still there too; the row decides who acts.
    await expect.poll(() => seen).toEqual([id, id])
  })
})

test("publishers beside each other take no operation twice for one wake", async () => {
  await using queue = await testQueue("postgres")
  const {
    settings,
    database: { db },
  } = queue
  const ids = await Promise.all(Array.from({ length: 300 }, () => newOperation(db)))
  const added: string[] = []
  const counting: QueueEngine = {
    ...queue.engine,
    add(jobs) {
      added.push(...jobs.map(({ id, wake }) => `${id}-${wake}`))
      return queue.engine.add(jobs)
    },
  }

  async function publish(): Promise<void> {
    const own = openDatabase({ url: settings.databaseUrl, connectionsMax: 1, onIdleError: () => undefined })
    await publishOperations(own, counting, signal)
    await own.destroy()
  }
  await Promise.all([publish(), publish(), publish(), publish()])

  expect(added.toSorted()).toEqual(ids.map((id) => `${id}-0`).toSorted())
})

test("what a publisher has taken and not committed yet is not another's", async () => {
  await using database = await testDatabase()
  const { db } = database
  const id = await newOperation(db)

  const { own, others } = await inTransaction(db, async (tx) => {
    const own = await takeUnrelayed(tx)
    const others = takeUnrelayed(db)
    await endedOrWaiting(db, others)
    return { own, others: { taken: others } }
  })

  expect(own).toEqual([{ id, queue: queueName, wake: 0 }])
  expect(await others.taken).toEqual([])
})

test("BullMQ's tables that were dropped are made again, and everything queued is marked for publishing", async () => {
  await using queue = await testQueue("postgres")
  const { db } = queue.database
  const id = await newOperation(db)
  await publishOperations(db, queue.engine, signal)

  await queue.wipe()
  const lost = [await sweepLostJobs(db, queue.engine), await sweepLostJobs(db, queue.engine)]

  expect(lost).toEqual([1, 0])
  expect(await rowOf(db, id)).toEqual({ state: "queued", wake: 1, relayed_at: null })
  await publishOperations(db, queue.engine, signal)
  expect(await queue.engine.unfinished([{ queue: queueName, id, wake: 1 }])).toEqual(new Set([id]))
})

test("work goes on after the database has cut every connection", async () => {
  await using queue = await testQueue("postgres")
  const { db } = queue.database
  const seen: string[] = []
  await queue.engine.consume(queueName, {
    concurrency: 1,
    handler: (id) => Promise.resolve(void seen.push(id)),
  })
  await using _dispatcher = await testDispatcher(sharing(queue))
  const first = await newOperation(db)
  await expect.poll(() => seen, { timeout: 10_000 }).toEqual([first])

  await queue.database.cutConnections()
  // The pool may hand out a connection that it does not know to be dead yet.
  let second = ""
  await expect.poll(async () => (second = await newOperation(db))).not.toBe("")

  await expect.poll(() => seen, { timeout: 30_000 }).toEqual([first, second])
})

test("while the queue is down rows are taken back, under a new wake", async () => {
  await using database = await testDatabase()
  await using queue = await testQueue("postgres")
  const { db } = database
  const id = await newOperation(db)
  const down = { ...queue.engine, add: () => Promise.reject(new Error("the queue is down")) }

  await expect(publishOperations(db, down, signal)).rejects.toThrow("the queue is down")
  expect(await rowOf(db, id)).toEqual({ state: "queued", wake: 1, relayed_at: null })
  await publishOperations(db, queue.engine, signal)

  expect(await queue.engine.unfinished([{ queue: queueName, id, wake: 1 }])).toEqual(new Set([id]))
})

test("a dispatcher lives on while Redis is down, and says so", async () => {
  await using database = await testDatabase()
  const { log, lines } = capturedLog()

  await using _dispatcher = await testDispatcher(
    { databaseUrl: database.url, redisUrl: "redis://127.0.0.1:1" },
    log,
  )
  const id = await newOperation(database.db)

  // Taken back for the next try.
  await expect.poll(async () => (await rowOf(database.db, id)).wake).toBeGreaterThan(0)
  expect(lines.join("")).toContain("cannot reach Redis at 127.0.0.1:1: nothing listens there")
  expect(lines.join("")).not.toContain("stack")
})
