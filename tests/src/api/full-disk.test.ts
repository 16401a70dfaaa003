import { startApi } from "@stillframe/api/start"
import type { Problem } from "@stillframe/domain/problem"
import { createLogger } from "@stillframe/runtime/logger"
import { testDatabase } from "@stillframe/testing/database"
import { sql } from "kysely"
import { expect, test } from "vitest"
import { jwtSecret, request, secretsKey, type Ask } from "./test-api.ts"

const full: Problem = { code: "insufficient_storage", message: "the disk is full: delete something" }

test("while the database's disk is almost full, creates are refused, deleting works, and /ready says it", async () => {
  await using opened = new AsyncDisposableStack()
  let problem: Problem | undefined
  const { ask } = await apiOn(opened, { databaseProblem: () => problem })
  const url = "https://receiver.example/"
  const hook = await ask("POST", "/webhooks", { body: { url, event_types: ["snapshot.completed"] } })
  expect(hook.status).toBe(201)

  problem = full
  for (const [path, body] of [
    ["/webhooks", { url, event_types: ["snapshot.completed"] }],
    ["/instances", { name: "a", image: "heartbeat" }],
    ["/instances/a/snapshots", { kind: "Standby" }],
    ["/snapshots/abcdefghijklmnopqrstuvwx/fork", { name: "b" }],
    [`/webhooks/${hook.body.id}/test`, undefined],
    ["/deliveries/1/resend", undefined],
  ] as const) {
    const refused = await ask("POST", path, { body })
    expect([path, refused.status, refused.body]).toEqual([
      path,
      409,
      { code: "insufficient_resources", message: full.message },
    ])
    expect(refused.headers.get("x-should-retry")).toBe("false")
  }
  const ready = await ask("GET", "/ready")
  expect(ready.body.problems).toContainEqual({ where: "database", ...full })
  expect((await ask("DELETE", `/webhooks/${hook.body.id}`)).status).toBe(204)

  problem = undefined
  expect(
    (await ask("POST", "/webhooks", { body: { url, event_types: ["snapshot.completed"] } })).status,
  ).toBe(201)
})

test("a database that has no room for a row is no internal error, and the client is told not to repeat", async () => {
  await using opened = new AsyncDisposableStack()
  const { ask, db } = await apiOn(opened, {})
  // In the words of Postgres on a full disk.
  await sql`create function no_room() returns trigger language plpgsql as
    $$ begin raise exception 'could not extend file' using errcode = 'disk_full'; end $$`.execute(db)
  await sql`create trigger no_room before insert on webhooks for each row execute function no_room()`.execute(
    db,
  )

  const body = { url: "https://receiver.example/", event_types: ["snapshot.completed"] }
  const refused = await ask("POST", "/webhooks", { body })

  expect(refused.status).toBe(409)
  expect(refused.body).toMatchObject({
    code: "insufficient_resources",
    message: expect.stringMatching(/disk is full: delete/),
  })
  expect(refused.headers.get("x-should-retry")).toBe("false")
})

async function apiOn(
  opened: AsyncDisposableStack,
  { databaseProblem }: { databaseProblem?: () => Problem | undefined },
) {
  const { url, db } = opened.use(await testDatabase())
  const api = await startApi(
    {
      databaseUrl: url,
      databaseDirectUrl: url,
      databaseProblem,
      listenHost: "127.0.0.1",
      port: 0,
      jwtSecret,
      secretsKey,
      webhookAllowedCidrs: [],
      compression: { enabled: false },
      snapshotCreate: "async",
      twinWaitMs: 500,
      streamHeartbeatMs: 15_000,
    },
    createLogger({ service: "api", level: "silent" }),
  )
  opened.use(api)
  return {
    db,
    ask: (method: string, path: string, asked: Ask = {}) => request(api.url, method, path, asked),
  }
}
