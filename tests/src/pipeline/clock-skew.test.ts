import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { openDatabase } from "@stillframe/db/client"
import { measureClock } from "@stillframe/db/hosts/measure-clock"
import { monotonicMs } from "@stillframe/domain/postgres/database-clock"
import { testDatabase } from "@stillframe/testing/database"
import { expect, test } from "vitest"
import { testStack } from "./test-stack.ts"

test("a host two hours behind is reported, and its snapshots have the database's time", async () => {
  await using stack = await testStack({ clockOfAll: "2 hours" })
  await stack.startCaptureWorker()
  const running = await stack.launch("running")

  const ready = (await stack.ask("GET", "/ready")).body
  const skew = { code: "clock_skew", message: expect.stringMatching(/ is 7\d{3} s behind the database's/) }
  expect(ready.status).toBe("degraded")
  expect(ready.problems).toContainEqual({ where: "api", ...skew })
  expect(ready.problems).toContainEqual({ where: `host ${running.host}`, ...skew })

  for (const [action, kind] of [
    [undefined, "Standby"],
    ["standby", "Standby"],
    ["stop", "Stopped"],
  ] as const) {
    if (action !== undefined) await stack.api.request("POST", `/instances/${running.id}/${action}`)
    const { body } = await stack.ask("POST", `/instances/${running.id}/snapshots`, {
      body: { kind },
      headers: { prefer: "wait=55" },
    })
    const manifest = JSON.parse(
      await readFile(join(await stack.payloadDir(body.id), "manifest.json"), "utf8"),
    )
    const { databaseMs } = await measureClock(stack.db)
    expect(body.status, `after ${action}`).toBe("ready")
    expect(Date.parse(body.captured_at), `after ${action}`).toBeGreaterThanOrEqual(
      Date.parse(body.created_at),
    )
    expect(Date.parse(body.captured_at), `after ${action}`).toBeLessThanOrEqual(databaseMs)
    // The files say the same to those who have no database.
    expect(manifest.captured_at, `after ${action}`).toBe(body.captured_at)
  }
})

test("a machine's clock is measured against the database's within the round trip", async () => {
  await using database = await testDatabase()
  const db = openDatabase({ url: database.url, onIdleError: () => {}, clockOffset: "-1 hour" })
  try {
    const before = monotonicMs()

    const { aheadMs, errorMs, monotonicMs: measuredMs } = await measureClock(db)

    expect(Math.abs(aheadMs - 3_600_000)).toBeLessThanOrEqual(errorMs + 5)
    expect(measuredMs).toBeGreaterThanOrEqual(before)
    expect(measuredMs).toBeLessThanOrEqual(monotonicMs())
  } finally {
    await db.destroy()
  }
})
