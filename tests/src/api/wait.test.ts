import { EventEmitter, once } from "node:events"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { createApp } from "@stillframe/api/app"
import { openEventTail } from "@stillframe/api/events/tail"
import { openAnswered } from "@stillframe/api/http/answered"
import type { Waker } from "@stillframe/db/connection/wake"
import { createLogger } from "@stillframe/runtime/logger"
import { patienceMs } from "@stillframe/testing/patience"
import { expect, test } from "vitest"
import { jwtSecret, secretsKey, testApi, token, whenWoken } from "./test-api.ts"

test("an answer is no longer held once its client is gone", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const listeners = new EventEmitter()
  const waker: Waker = {
    ...api.waker,
    listen(channel, listener) {
      const stop = api.waker.listen(channel, listener)
      listeners.emit("listening")
      return () => {
        stop()
        listeners.emit("stopped")
      }
    },
  }
  const log = createLogger({ service: "api", level: "silent" })
  const stopping = new AbortController().signal
  const compression = { enabled: false }
  const answered = openAnswered(api.db, log)
  const own = { db: api.db, waker, log, stopping, starting: () => false }
  const app = createApp({
    ...own,
    jwtSecret,
    secretsKey,
    webhookRules: () => ({ allowedCidrs: [], stackPorts: [] }),
    resolve: async () => [],
    compression,
    snapshotCreate: "async",
    admitCapture: async () => {},
    twinWaitMs: 0,
    streamHeartbeatMs: 1_000,
    answered,
    eventTail: openEventTail(own),
  })
  const server = createServer(app).listen(0, "127.0.0.1")
  await once(server, "listening")
  const client = new AbortController()
  const signal = AbortSignal.timeout(patienceMs)
  const listening = once(listeners, "listening", { signal })
  const request = fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/instances/vm/snapshots`, {
    method: "POST",
    headers: { authorization: `Bearer ${token({})}`, prefer: "wait=50", "content-type": "application/json" },
    body: JSON.stringify({ kind: "Standby" }),
    signal: client.signal,
  })
  await listening
  const stopped = once(listeners, "stopped", { signal })

  client.abort()

  await expect(request).rejects.toThrow("aborted")
  await stopped
  server.close()
})

test("a process that stops gives held answers at once, as if their time had run out", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const held = api.ask("POST", "/instances/vm/snapshots", {
    body: { kind: "Standby" },
    headers: { prefer: "wait=50" },
  })
  await whenWoken(api, "operations", async () =>
    api.db.selectFrom("operations").select("id").executeTakeFirst(),
  )

  await api.api[Symbol.asyncDispose]()

  const { status, headers } = await held
  expect([status, headers.get("connection")]).toEqual([202, "close"])
  await expect(api.ask("GET", "/health")).rejects.toThrow("fetch failed")
})
