import { rm } from "node:fs/promises"
import { createLogger } from "@stillframe/runtime/logger"
import { startStack } from "@stillframe/stillframe/stack/stack"
import { testDatabase } from "@stillframe/testing/database"
import { scratchFolder } from "@stillframe/testing/scratch"
import { sql } from "kysely"
import { expect, test } from "vitest"
import { request, type Reply } from "../api/test-api.ts"

const connectionsMax = 4

test("the parts of npm start share few connections, however many requests come at once", async () => {
  await using place = await testDatabase()
  await using opened = new AsyncDisposableStack()
  const dir = await scratchFolder("shared-connections-")
  opened.defer(() => rm(dir, { recursive: true, force: true }))
  const env = {
    PATH: process.env["PATH"],
    DATABASE_URL: place.url,
    DATABASE_CONNECTIONS: `${connectionsMax}`,
    DATA_DIR: dir,
    QEMU_ACCELERATOR: "tcg",
    PORT: "0",
    JWT_SECRET: "a secret of the tests, 32 bytes long",
    SECRETS_KEY: "another secret, 32 bytes of it or so",
  }
  const stack = opened.use(await startStack(env, createLogger({ service: "test", level: "silent" })))

  const answers: Reply[] = await Promise.all(
    Array.from({ length: 60 }, () => request(stack.url, "GET", "/instances", {})),
  )

  const { rows } = await sql<{ count: number }>`
    select count(*)::int as count from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()`.execute(place.db)
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
  // One for notifications, two for the queue's queries, and one for each of its two workers.
  expect(rows[0]?.count).toBeLessThanOrEqual(connectionsMax + 1 + 2 + 2)
})
