import { spawn } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import { testDatabase } from "@stillframe/testing/database"
import { startReceiver } from "@stillframe/testing/receiver"
import { expect, test } from "vitest"
import { appendEvents, attempts, delivery, verified, webhookTo } from "./deliveries.ts"
import { secretsKey, testDispatcher } from "./dispatchers.ts"
import { startNameServer } from "./name-server.ts"

const main = fileURLToPath(import.meta.resolve("@stillframe/dispatcher/main"))

// Stands for a public address, to which a test must not connect.
const allowedAddress = "127.0.0.2"
const webhooks = { allowedCidrs: [`${allowedAddress}/32`], stackPorts: [] }

test("a name that turns to a private address after it was checked leads nowhere", async () => {
  await using database = await testDatabase()
  await using outside = await startReceiver({ host: allowedAddress })
  await using names = await startNameServer((_name, lookup) => [lookup === 1 ? allowedAddress : "127.0.0.1"])
  const { db, url: databaseUrl } = database
  outside.answerAll({ status: 204, headers: { connection: "close" } })
  await webhookTo(db, `http://rebinding.example:${outside.port}/hook`)

  await using _dispatcher = await testDispatcher({ databaseUrl, webhooks, lookup: names.lookup })
  await appendEvents(db, 1)
  await expect.poll(() => delivery(db)).toMatchObject({ state: "delivered" })
  await appendEvents(db, 1)
  await expect.poll(async () => (await attempts(db)).length).toBe(2)

  // One look-up for each connection, so nothing lies between the check and the connection.
  expect(names.asked).toEqual(["rebinding.example", "rebinding.example"])
  expect(outside.requests.map((request) => (verified(request) as { sequence: number }).sequence)).toEqual([1])
  expect((await attempts(db))[1]).toMatchObject({
    response_status: null,
    error: "address 127.0.0.1 is not public; add its range to WEBHOOK_ALLOWED_CIDRS",
  })
})

test("of a name with several addresses only those that may be reached are", async () => {
  await using database = await testDatabase()
  await using outside = await startReceiver({ host: allowedAddress })
  // Answers too, so that only the rule keeps the dispatcher from it.
  await using inside = await startReceiver({ port: outside.port })
  await using names = await startNameServer(() => ["127.0.0.1", allowedAddress, "10.0.0.1", "::1"])
  const { db, url: databaseUrl } = database
  await webhookTo(db, `http://mixed.example:${outside.port}/hook`)
  await appendEvents(db, 1)

  await using _dispatcher = await testDispatcher({ databaseUrl, webhooks, lookup: names.lookup })

  await expect.poll(() => delivery(db)).toMatchObject({ state: "delivered", attempt: 1 })
  expect([outside.requests.length, inside.requests.length]).toEqual([1, 0])
})

const refused = {
  private: "10.0.0.1",
  home: "192.168.1.1",
  loopback: "127.0.0.1",
  metadata: "169.254.169.254",
  cgnat: "100.64.0.1",
  multicast: "224.0.0.1",
  unspecified: "0.0.0.0",
  loopback6: "::1",
  unique6: "fd00::1",
  link6: "fe80::1",
  multicast6: "ff02::1",
  mapped: "::ffff:a00:1",
  nat64: "64:ff9b::a00:1",
}

test("a name of an address that is not public is refused, and each attempt says so", async () => {
  await using database = await testDatabase()
  await using names = await startNameServer((name) => {
    const address = refused[name.split(".", 1).join("") as keyof typeof refused]
    return [address]
  })
  const { db, url: databaseUrl } = database
  for (const name of Object.keys(refused)) await webhookTo(db, `https://${name}.example/hook`)
  await appendEvents(db, 1)

  await using _dispatcher = await testDispatcher({ databaseUrl, webhooks, lookup: names.lookup })
  await expect.poll(async () => (await attempts(db)).length).toBe(Object.keys(refused).length)

  for (const { error, response_status } of await attempts(db)) {
    expect(response_status).toBe(null)
    expect(error).toMatch(/^address \S+ is not public; add its range to WEBHOOK_ALLOWED_CIDRS$/)
  }
})

test("a name that nobody knows is a failure like others", async () => {
  await using database = await testDatabase()
  await using names = await startNameServer(() => [])
  const { db, url: databaseUrl } = database
  await webhookTo(db, "https://unknown.example/hook")
  await appendEvents(db, 1)

  await using _dispatcher = await testDispatcher({ databaseUrl, webhooks, lookup: names.lookup })

  const error = "the name has no address; check the webhook's URL"
  await expect.poll(() => delivery(db)).toMatchObject({ state: "pending", attempt: 1, error })
})

test("a proxy that the environment names is not used", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  await using proxy = await startReceiver()
  const { db } = database
  await webhookTo(db, receiver.url)
  await appendEvents(db, 1)
  const env: Record<string, string> = {
    DATABASE_URL: database.url,
    SECRETS_KEY: secretsKey,
    WEBHOOK_ALLOWED_CIDRS: "127.0.0.0/8",
    NODE_USE_ENV_PROXY: "1",
  }
  for (const name of ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]) {
    env[name] = env[name.toLowerCase()] = `http://127.0.0.1:${proxy.port}`
  }

  const child = spawn(process.execPath, [main], { env, stdio: "ignore" })
  const ended = once(child, "exit")
  await receiver.received(1)
  child.kill("SIGTERM")
  await ended

  expect(proxy.requests).toEqual([])
})
