import { configFromEnv } from "@stillframe/capture-worker/config"
import { openDatabase, type OwnedDatabase } from "@stillframe/db/client"
import { createInstance } from "@stillframe/db/instances/instances"
import {
  cancelInstanceWork,
  claimOperation,
  createOperation,
  finishOperation,
  requeueOperation,
} from "@stillframe/db/operations/operations"
import { nextUnrelayedInMs, takeUnrelayed } from "@stillframe/db/operations/relay"
import { finishDone, runOperation, type OperationContext } from "@stillframe/db/operations/run-operation"
import { publishOperations } from "@stillframe/dispatcher/publish"
import { sweepLostJobs } from "@stillframe/dispatcher/sweep"
import type { OperationKind } from "@stillframe/domain/operation"
import { createLogger } from "@stillframe/runtime/logger"
import { testDatabase } from "@stillframe/testing/database"
import { testQueue, type TestQueue } from "@stillframe/testing/queue-engines"
import { expect, test } from "vitest"
import { testDispatcher } from "./dispatchers.ts"

const queue = "capture.host"
const { signal } = new AbortController()

async function newVm(db: OwnedDatabase, name: string): Promise<string> {
  const vm = { image: "heartbeat", hypervisor: "qemu", host: "host", launch: {}, vcpus: 1 } as const
  return (await createInstance(db, { name, ...vm, memoryMib: 64 })).id
}

function newOperation(db: OwnedDatabase, instanceId: string, kind: OperationKind = "capture") {
  return createOperation(db, { kind, queue, instanceId })
}

/** Opens the same database with a clock that is ahead, for queries that look only at rows of some age. */
function aMinuteLater(url: string): OwnedDatabase {
  return openDatabase({ url, clockOffset: "1 minute", onIdleError: () => undefined })
}

async function relayed(db: OwnedDatabase): Promise<string[]> {
  return (await takeUnrelayed(db)).map(({ id }) => id)
}

async function begin(db: OwnedDatabase, id: string): Promise<{ id: string; token: string }> {
  const { token = "" } = (await claimOperation(db, { id, worker: "w", queue })) ?? {}
  return { id, token }
}

async function end(db: OwnedDatabase, id: string): Promise<void> {
  await finishOperation(db, { ...(await begin(db, id)), end: { state: "done" } })
}

test("only the first open operation of an instance is relayed, each of the others once it is the first", async () => {
  await using database = await testDatabase()
  const { db } = database
  const [one, other] = [await newVm(db, "one"), await newVm(db, "other")]
  const first = await newOperation(db, one)
  const second = await newOperation(db, one)
  const third = await newOperation(db, one, "stop")
  const others = await newOperation(db, other)

  const turns = [(await relayed(db)).toSorted(), await relayed(db)]
  await end(db, first)
  turns.push(await relayed(db), await relayed(db))
  await end(db, second)
  turns.push(await relayed(db))

  expect(turns).toEqual([[first, others].toSorted(), [], [second], [], [third]])
})

test("an operation that waits for another asks for no further turn of the publisher", async () => {
  await using database = await testDatabase()
  const { db } = database
  const vm = await newVm(db, "vm")
  await newOperation(db, vm)
  await newOperation(db, vm)

  await relayed(db)

  expect(await nextUnrelayedInMs(db)).toBe(undefined)
})

test("an operation that waits for its next try keeps the later ones of its instance waiting", async () => {
  await using database = await testDatabase()
  const { db } = database
  const vm = await newVm(db, "vm")
  const first = await newOperation(db, vm)
  await newOperation(db, vm)
  await relayed(db)

  await requeueOperation(db, { ...(await begin(db, first)), delayMs: 60_000, counted: true })

  expect(await relayed(db)).toEqual([])
  expect(await nextUnrelayedInMs(db)).toBeGreaterThan(0)
})

test("work on files waits for no operation of an instance", async () => {
  await using database = await testDatabase()
  const { db } = database
  const vm = await newVm(db, "vm")
  const capture = await newOperation(db, vm)
  const verify = await newOperation(db, vm, "verify")
  const removal = await createOperation(db, { kind: "delete", queue })

  expect((await relayed(db)).toSorted()).toEqual([capture, verify, removal].toSorted())
})

test("the deletion of an instance is relayed at once: it cancels what would come before it", async () => {
  await using database = await testDatabase()
  const { db } = database
  const vm = await newVm(db, "vm")
  const running = await newOperation(db, vm)
  await newOperation(db, vm)
  await relayed(db)
  await begin(db, running)

  await cancelInstanceWork(db, vm)
  const deletion = await newOperation(db, vm, "delete")

  expect(await relayed(db)).toEqual([deletion])
})

test("a backlog of one VM reaches the queue as one job, and the sweep leaves the rest alone", async () => {
  await using engine = await testQueue("postgres")
  await using later = aMinuteLater(engine.settings.databaseUrl)
  const { db } = engine.database
  const vm = await newVm(db, "vm")
  const ids: string[] = []
  for (let n = 0; n < 50; n++) ids.push(await newOperation(db, vm))
  const jobs = ids.map((id) => ({ queue, id, wake: 0 }))

  await publishOperations(db, engine.engine, signal)
  const held = await engine.engine.unfinished(jobs)
  const lost = await sweepLostJobs(later, engine.engine)

  expect([...held]).toEqual(ids.slice(0, 1))
  expect(lost).toBe(0)
})

test("an operation that was relayed too early, and so dropped, is taken for lost only once it is the first", async () => {
  await using engine = await testQueue("postgres")
  await using later = aMinuteLater(engine.settings.databaseUrl)
  const { db } = engine.database
  const vm = await newVm(db, "vm")
  const first = await newOperation(db, vm)
  const second = await newOperation(db, vm)
  await publishOperations(db, engine.engine, signal)
  // As if the first one's transaction had committed after the second was taken.
  await db.updateTable("operations").set({ relayed_at: new Date() }).where("id", "=", second).execute()

  const whileItWaits = await sweepLostJobs(later, engine.engine)
  await db.updateTable("operations").set({ state: "done" }).where("id", "=", first).execute()
  const onceItIsFirst = await sweepLostJobs(later, engine.engine)

  expect([whileItWaits, onceItIsFirst]).toEqual([0, 1])
})

test.each(["done", "failed", "cancelled"] as const)(
  "the next operation runs also when the process that left the one before it %s died right after the commit",
  async (state) => {
    await using engine = await testQueue("postgres")
    const { db } = engine.database
    const vm = await newVm(db, "vm")
    const first = await newOperation(db, vm)
    const second = await newOperation(db, vm)
    const seen: string[] = []
    await engine.engine.consume(queue, {
      concurrency: 1,
      handler: (id) => Promise.resolve(void seen.push(id)),
    })
    await using _dispatcher = await testDispatcher({ databaseUrl: engine.settings.databaseUrl })
    await expect.poll(() => seen, { timeout: 5_000 }).toEqual([first])

    // No other row is touched, and no wake-up is sent.
    await db.updateTable("operations").set({ state }).where("id", "=", first).execute()

    await expect.poll(() => seen, { timeout: 5_000 }).toEqual([first, second])
  },
)

/**
 * A worker's consumer as the capture-worker has it; `work` stands for what is done with the VM of that id.
 */
async function testWorker(
  { engine, database: { db } }: TestQueue,
  { concurrency, work }: { concurrency: number; work: (instanceId: string) => Promise<void> },
): Promise<void> {
  const capture = {
    async run({ operation }: OperationContext) {
      await work(operation.instanceId ?? "")
      await finishDone(db, operation)
    },
    async failed() {},
  }
  const log = createLogger({ service: "test", level: "silent" })
  const runner = { db, queue, worker: "w", committed() {}, log, handlers: { capture } }
  const handler = (id: string, stop: AbortSignal): Promise<void> => runOperation(runner, id, stop)
  await engine.consume(queue, { concurrency, handler })
}

test("a VM that hangs, with more asked of it, holds one place; by default a host has others", async () => {
  await using engine = await testQueue("postgres")
  const { db } = engine.database
  const [hung, healthy] = [await newVm(db, "hung"), await newVm(db, "healthy")]
  const answers = Promise.withResolvers<void>()
  const worked: string[] = []
  const { concurrency } = configFromEnv({ DATABASE_URL: engine.settings.databaseUrl })
  await testWorker(engine, {
    concurrency,
    async work(instanceId) {
      if (instanceId === hung) await answers.promise
      worked.push(instanceId)
    },
  })
  for (let n = 0; n < 10; n++) await newOperation(db, hung)
  for (let n = 0; n < 3; n++) await newOperation(db, healthy)

  await using _dispatcher = await testDispatcher({ databaseUrl: engine.settings.databaseUrl })

  await expect.poll(() => worked, { timeout: 10_000 }).toEqual([healthy, healthy, healthy])
  answers.resolve()
})

test("VMs take turns: a long backlog of one delays another by one of its operations", async () => {
  await using engine = await testQueue("postgres")
  const { db } = engine.database
  const [busy, other] = [await newVm(db, "busy"), await newVm(db, "other")]
  const worked: string[] = []
  for (let n = 0; n < 20; n++) await newOperation(db, busy)
  await newOperation(db, other)
  await publishOperations(db, engine.engine, signal)

  await testWorker(engine, {
    concurrency: 1,
    async work(instanceId) {
      worked.push(instanceId)
    },
  })
  await using _dispatcher = await testDispatcher({ databaseUrl: engine.settings.databaseUrl })

  await expect.poll(() => worked.slice(0, 2), { timeout: 10_000 }).toEqual([busy, other])
})
