import { openDatabase, type OwnedDatabase } from "@stillframe/db/client"
import { compressionHeartbeat } from "@stillframe/db/hosts/compression-workers"
import { claimOperation, createOperation, requeueOperation } from "@stillframe/db/operations/operations"
import { recordQueueCheck } from "@stillframe/db/operations/queue-check"
import { requeueExpired, takeUnrelayed } from "@stillframe/db/operations/relay"
import { numberAndClaim } from "@stillframe/db/webhooks/deliveries"
import { pullBackTimes } from "@stillframe/db/webhooks/pull-back-times"
import { findWebhook, rotateSecret } from "@stillframe/db/webhooks/webhooks"
import { testDatabase } from "@stillframe/testing/database"
import { sql } from "kysely"
import { expect, test } from "vitest"
import { appendEvents, webhookTo } from "../dispatcher/deliveries.ts"

/** The columns with a time of every table, and how far ahead the latest of them is, in hours. */
async function hoursAhead(db: OwnedDatabase): Promise<Record<string, number>> {
  const { rows: columns } = await sql<{ name: string; column: string }>`
    select table_name as name, column_name as column from information_schema.columns
    where table_schema = 'public' and data_type = 'timestamp with time zone'
      and table_name !~ '^(kysely|bullmq)'`.execute(db)
  const ahead: Record<string, number> = {}
  for (const { name, column } of columns) {
    const { rows } = await sql<{ hours: number | null }>`
      select round(extract(epoch from max(${sql.ref(column)}) - clock()) / 3600)::int as hours
      from ${sql.table(name)}
      where ${column === "lease_expires_at" ? sql`token is not null` : sql`true`}`.execute(db)
    ahead[`${name}.${column}`] = rows[0]?.hours ?? 0
  }
  return ahead
}

/** Times that are only shown, or by which only what is old is removed. */
const harmless = /created_at|occurred_at|finished_at|attempted_at|timestamp/

function farAhead(hours: Readonly<Record<string, number>>): string[] {
  return Object.keys(hours)
    .filter((name) => (hours[name] ?? 0) > 0 && !harmless.test(name))
    .toSorted()
}

test("whatever the database's clock wrote while it was two days ahead holds nothing up once it is right", async () => {
  await using database = await testDatabase()
  const { db, url } = database
  const queue = "compress.pool"
  const ahead = openDatabase({ url, clockOffset: "2 days", onIdleError: () => {} })
  const held = await createOperation(ahead, { kind: "compress", queue })
  const relayed = await createOperation(ahead, { kind: "compress", queue })
  await takeUnrelayed(ahead)
  await claimOperation(ahead, { id: held, worker: "gone", queue })
  const delayed = await createOperation(ahead, { kind: "compress", queue })
  const claimed = await claimOperation(ahead, { id: delayed, worker: "gone", queue })
  await requeueOperation(ahead, { ...claimed!, delayMs: 1_000, counted: true })
  await compressionHeartbeat(ahead, {
    name: "gone",
    pool: "pool",
    codecs: { zstd: "1", lz4: "1" },
    problems: [],
  })
  await recordQueueCheck(ahead, [])
  const { id: webhook } = await webhookTo(ahead, "https://receiver.example/hook")
  await rotateSecret(ahead, webhook, { secret: Buffer.from("sealed"), graceMs: 7 * 24 * 3_600_000 })
  await appendEvents(ahead, 2)
  expect((await numberAndClaim(ahead, 1)).deliveries).toHaveLength(1)
  await ahead.destroy()
  expect(farAhead(await hoursAhead(db))).toEqual([
    "compression_workers.heartbeat_at",
    "deliveries.claimed_until",
    "deliveries.next_attempt_at",
    "operations.lease_expires_at",
    "operations.not_before",
    "operations.relayed_at",
    "queue_check.checked_at",
    "webhooks.previous_secret_until",
  ])

  expect(await pullBackTimes(db)).toBeGreaterThan(0)

  const { "webhooks.previous_secret_until": grace, ...others } = await hoursAhead(db)
  expect(grace).toBe(7 * 24)
  expect(farAhead(others)).toEqual([])
  expect(await findWebhook(db, webhook)).toMatchObject({ enabled: true, failing_since: null })
  expect((await takeUnrelayed(db)).map(({ id }) => id)).toEqual([delayed])
  expect((await numberAndClaim(db, 10)).deliveries).toHaveLength(2)
  expect((await claimOperation(db, { id: relayed, worker: "new", queue }))?.id).toBe(relayed)
  // Its owner may live, and has the time of a lease to renew it.
  expect(await requeueExpired(db)).toBe(0)
  expect(await pullBackTimes(db)).toBe(0)
})

test("times that can be right are left alone", async () => {
  await using database = await testDatabase()
  const { db } = database
  const queue = "compress.pool"
  const id = await createOperation(db, { kind: "compress", queue })
  const claimed = await claimOperation(db, { id, worker: "alive", queue })
  await webhookTo(db, "https://receiver.example/hook")
  await appendEvents(db, 1)
  await numberAndClaim(db, 1)

  expect(await pullBackTimes(db)).toBe(0)

  await requeueOperation(db, { ...claimed!, delayMs: 299_000, counted: true })
  await db
    .updateTable("deliveries")
    .set({ attempt: 1, claimed_until: null, next_attempt_at: sql<Date>`clock() + interval '23 hours'` })
    .execute()
  // As if it was relayed during the call.
  await db
    .updateTable("operations")
    .set({ relayed_at: sql<Date>`clock() + interval '1 second'` })
    .execute()
  expect(await pullBackTimes(db)).toBe(0)
})
