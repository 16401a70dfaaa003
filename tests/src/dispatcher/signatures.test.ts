import { createHmac, createSecretKey, type KeyObject } from "node:crypto"
import { guardedAgents } from "@stillframe/dispatcher/address-guard"
import { postSigned } from "@stillframe/dispatcher/post-signed"
import { sealSecret } from "@stillframe/runtime/secrets"
import { testDatabase } from "@stillframe/testing/database"
import { startReceiver, type ReceivedRequest } from "@stillframe/testing/receiver"
import { sql } from "kysely"
import { Webhook } from "standardwebhooks"
import { expect, test } from "vitest"
import { appendEvents, delivery, secret, verified, webhookTo } from "./deliveries.ts"
import { secretsKey, testDispatcher } from "./dispatchers.ts"

// Published with the libraries of Standard Webhooks.
const vector = {
  secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
  id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
  timestamp: 1_614_265_330,
  body: '{"test": 2432232314}',
  signature: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}

/** As the specification says it, without the library. */
function signedByHand(
  by: string,
  { id, timestamp, body }: { id: string; timestamp: number; body: string },
): string {
  return `v1,${createHmac("sha256", keyOf(by)).update(`${id}.${timestamp}.${body}`).digest("base64")}`
}

function keyOf(whsec: string): KeyObject {
  return createSecretKey(whsec.slice("whsec_".length), "base64")
}

async function sent(bodies: readonly string[]): Promise<ReceivedRequest[]> {
  await using receiver = await startReceiver()
  const agents = guardedAgents({ allowedCidrs: ["127.0.0.0/8"], stackPorts: [] })
  const { signal } = new AbortController()
  for (const [i, body] of bodies.entries()) {
    const post = { url: receiver.url, id: `msg_${i}`, body, keys: [keyOf(vector.secret)] }
    await postSigned({ ...post, agents, timeoutMs: 10_000, signal })
  }
  await agents.destroy()
  return receiver.received(bodies.length)
}

test("the published vector is what signing by hand and by the library comes to", () => {
  const library = new Webhook(vector.secret).sign(vector.id, new Date(vector.timestamp * 1_000), vector.body)

  expect(library).toBe(vector.signature)
  expect(signedByHand(vector.secret, vector)).toBe(vector.signature)
})

test("what is sent has the signature that the specification asks for, over the very bytes", async () => {
  const bodies = [vector.body, '{"name":"nächtlich \u{1F4A4}"}', `{"long":"${"ü".repeat(50_000)}"}`]

  const requests = await sent(bodies)

  expect(requests.map(({ body }) => body)).toEqual(bodies)
  for (const request of requests) {
    const { headers, body } = request
    const id = String(headers["webhook-id"])
    const timestamp = Number(headers["webhook-timestamp"])
    expect(headers["webhook-signature"]).toBe(signedByHand(vector.secret, { id, timestamp, body }))
    expect(Math.abs(Date.now() / 1_000 - timestamp)).toBeLessThan(60)
    expect(verified(request, vector.secret)).toEqual(JSON.parse(body))
  }
})

test.each([
  ["webhook-id", (id: string) => `${id}0`],
  ["webhook-timestamp", (seconds: string) => String(Number(seconds) + 1)],
  ["webhook-signature", (signature: string) => `${signature.slice(0, -2)}00`],
] as const)("a request whose %s was changed on its way is refused", async (header, change) => {
  const [request] = await sent([vector.body])
  const { headers } = request!
  const changed = { ...headers, [header]: change(String(headers[header])) }

  expect(verified(request!, vector.secret)).toEqual({ test: 2_432_232_314 })
  expect(() => verified({ ...request!, headers: changed }, vector.secret)).toThrow(/signature|timestamp/i)
})

const previous = `whsec_${Buffer.from("the secret before the rotation!!").toString("base64")}`

test("while a rotation lasts both secrets sign, the new one first", async () => {
  await using database = await testDatabase()
  await using receiver = await startReceiver()
  const { db, url: databaseUrl } = database
  await webhookTo(db, receiver.url)
  await db
    .updateTable("webhooks")
    .set({
      previous_secret: sealSecret(secretsKey, previous),
      previous_secret_until: sql`clock() + interval '1 hour'`,
    })
    .execute()
  await appendEvents(db, 1)

  const during = await testDispatcher({ databaseUrl })
  const [both] = await receiver.received(1)
  await expect.poll(() => delivery(db)).toMatchObject({ state: "delivered" })
  await during[Symbol.asyncDispose]()
  await appendEvents(db, 1)
  await using _after = await testDispatcher({ databaseUrl, clockOffset: "2 hours" })
  const [, one] = await receiver.received(2)

  expect(verified(both!, secret)).toEqual(verified(both!, previous))
  expect(both!.headers["webhook-signature"]).toMatch(/^v1,\S+ v1,\S+$/)
  expect(verified(one!, secret)).toMatchObject({ sequence: 2 })
  expect(() => verified(one!, previous)).toThrow(/signature/)
})
