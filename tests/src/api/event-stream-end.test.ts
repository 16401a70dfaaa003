import { once } from "node:events"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { createApp } from "@stillframe/api/app"
import { openEventTail } from "@stillframe/api/events/tail"
import { openAnswered } from "@stillframe/api/http/answered"
import type { Waker } from "@stillframe/db/connection/wake"
import { createLogger } from "@stillframe/runtime/logger"
import { shutdownDeadlineMs } from "@stillframe/runtime/process"
import { expect, test } from "vitest"
import { snapshotRecord } from "../events/records.ts"
import { readEvents } from "./event-reader.ts"
import { happen, jwtSecret, secretsKey, testApi } from "./test-api.ts"

test("it takes a token that may read events, in the header, and a place in the feed that can be one", async () => {
  await using api = await testApi()
  const ask = async (path: string, headers: Record<string, string> = {}, claims: object | null = {}) =>
    (await api.ask("GET", `/events/stream${path}`, { headers, claims })).status

  expect(await ask("", {}, null)).toBe(401)
  expect(await ask("?access_token=x&token=x", {}, null)).toBe(401)
  expect(await ask("", {}, { permissions: ["snapshot:read", "webhook:read"] })).toBe(403)
  for (const id of ["", "x", "-1", "1.5", "99999999999999999", "1, 2"])
    expect([id, await ask("", { "last-event-id": id })]).toEqual([id, 400])
  for (const query of ["after=x", "types=x", "types=", "snapshot_id=x", "instance_id=x"])
    expect([query, await ask(`?${query}`)]).toEqual([query, 400])
  const head = await api.ask("HEAD", "/events/stream")
  expect([head.status, head.headers.get("content-type")]).toEqual([200, "text/event-stream"])
})

test("a stream ends when its token does", async () => {
  await using api = await testApi()
  // The leeway is 30 s.
  const exp = Math.floor(Date.now() / 1_000) - 28
  await using reader = await readEvents(api, "", { claims: { exp } })

  const comments: (string | undefined)[] = []
  for (let frame = await reader.next(); frame !== undefined; frame = await reader.next())
    comments.push(frame.comment)

  expect(comments.at(-1)).toBe("the token has expired")
  expect(reader.response.complete).toBe(true)
  expect(Date.now()).toBeGreaterThanOrEqual((exp + 30) * 1_000)
  expect((await api.ask("GET", "/events", { claims: { exp } })).status).toBe(401)
})

test("a process that stops ends its streams at once, those that nobody reads too", async () => {
  await using api = await testApi()
  const large = snapshotRecord({ name: "x".repeat(200_000) })
  await using idle = await readEvents(api, "?types=instance.deleted")
  await using stuck = await readEvents(api)
  for (let n = 0; n < 100; n += 1) await happen(api, 1, large)
  const started = performance.now()

  await api.api[Symbol.asyncDispose]()

  expect(performance.now() - started).toBeLessThan(shutdownDeadlineMs / 3)
  await idle.rest()
  expect(idle.response.complete).toBe(true)
  await stuck.rest()
  expect(stuck.response.complete).toBe(false)
})

test("when the last client is gone nothing listens or reads any more", async () => {
  await using api = await testApi()
  let listening = 0
  const waker: Waker = {
    ...api.waker,
    listen(channel, listener) {
      const stop = api.waker.listen(channel, listener)
      listening += 1
      return () => {
        stop()
        listening -= 1
      }
    },
  }
  const log = createLogger({ service: "api", level: "silent" })
  const own = { db: api.db, waker, log, stopping: new AbortController().signal, starting: () => false }
  const app = createApp({
    ...own,
    jwtSecret,
    secretsKey,
    webhookRules: () => ({ allowedCidrs: [], stackPorts: [] }),
    resolve: async () => [],
    compression: { enabled: false },
    snapshotCreate: "async",
    admitCapture: async () => {},
    twinWaitMs: 0,
    streamHeartbeatMs: 1_000,
    answered: openAnswered(api.db, log),
    eventTail: openEventTail(own),
  })
  const server = createServer(app).listen(0, "127.0.0.1")
  await once(server, "listening")
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`

  for (let round = 0; round < 2; round += 1) {
    const readers = [await readEvents({ api: { url } }), await readEvents({ api: { url } })]
    const whileRead = listening
    for (const reader of readers) await reader[Symbol.asyncDispose]()
    await expect.poll(() => listening).toBe(0)
    expect(whileRead).toBeGreaterThan(0)
  }
  server.close()
})
