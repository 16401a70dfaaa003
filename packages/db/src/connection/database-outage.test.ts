import { setImmediate } from "node:timers/promises"
import { expect, test } from "vitest"
import { openMigrated } from "../open.ts"
import { openDatabaseOutage } from "./database-outage.ts"

const gone = "the database can't be reached; trying again"
const back = "the database can be reached again"
const missed = "notifications of the database are missed, so changes are seen later; connecting again"
const received = "notifications of the database are received again"

/** A database whose pool reaches it or not, as the test says; `told` are the messages of the log. */
function databaseByHand() {
  const told: string[] = []
  const note = (_: object, message: string): void => void told.push(message)
  let reachable = true
  const outage = openDatabaseOutage({ info: note, warn: note }, () => {
    if (reachable) return Promise.resolve()
    outage.pool.failed(new Error("refused"))
    return Promise.reject(new Error("refused"))
  })
  async function miss(times: number): Promise<void> {
    for (let tried = 0; tried < times; tried += 1) {
      outage.notifications.failed(new Error("the connection ended"))
      await setImmediate()
    }
  }
  return { outage, told, miss, set: (now: boolean) => void (reachable = now) }
}

test("a database that is lost is one outage, also where its notifications miss it first", async () => {
  const { outage, told, miss, set } = databaseByHand()
  outage.begin()

  set(false)
  await miss(5)
  outage.broken()
  await setImmediate()
  set(true)
  outage.pool.worked()
  await miss(1)
  outage.notifications.worked()

  expect(told).toEqual([gone, back])
})

test("notifications that alone stay away are an outage of their own", async () => {
  const { outage, told, miss } = databaseByHand()
  outage.begin()

  await miss(3)
  outage.notifications.worked()

  expect(told).toEqual([missed, received])
})

test("a connection that is replaced at once is no outage", async () => {
  const { outage, told, miss } = databaseByHand()
  outage.begin()

  outage.broken()
  await miss(1)
  outage.notifications.worked()
  await miss(1)
  outage.notifications.worked()

  expect(told).toEqual([])
})

test("a start without a database fails with the remedy, and the log promises no other try", async () => {
  const told: string[] = []
  const note = (_: object, message: string): void => void told.push(message)
  await using resources = new AsyncDisposableStack()
  const databaseUrl = "postgres://somebody@127.0.0.1:1/stillframe"
  const options = { databaseUrl, databaseDirectUrl: databaseUrl, log: { info: note, warn: note } }

  await expect(openMigrated(resources, options)).rejects.toThrow("Start it, or correct DATABASE_URL")

  expect(told).toEqual([])
})
