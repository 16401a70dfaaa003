import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { startApi } from "@stillframe/api/start"
import { startCompressionWorker } from "@stillframe/compression-worker/start"
import { startDispatcher } from "@stillframe/dispatcher/start"
import { createId } from "@stillframe/domain/ids"
import { createLogger, type Logger } from "@stillframe/runtime/logger"
import { cuttable, type Cuttable } from "@stillframe/testing/cuttable"
import { testDatabase } from "@stillframe/testing/database"
import { expect, inject, test } from "vitest"
import { jwtSecret, secretsKey } from "../api/test-api.ts"

interface Line {
  readonly level: string
  readonly msg: string
  readonly part: string
  readonly reason?: string
}

const lost = "the database can't be reached; trying again"
const back = "the database can be reached again"

/** Enough tries in vain for each loop to have failed several times. */
const triesInVain = 25

test("a lost database is one line in each process when it goes, and one when it is back", async () => {
  await using opened = new AsyncDisposableStack()
  const { lines, log } = collected()
  const database = opened.use(await testDatabase())
  const proxy = opened.use(await cuttable(database.url))
  const { url } = await startProcesses(opened, { databaseUrl: proxy.url, log })
  lines.length = 0

  proxy.cut()
  await triedInVain(proxy)
  expect((await fetch(`${url}/ready`)).status).toBe(503)
  proxy.restore()

  await expect.poll(async () => (await fetch(`${url}/ready`)).status).toBe(200)
  await expect.poll(() => lines.filter(({ msg }) => msg === back).length).toBe(3)
  for (const part of ["api", "dispatcher", "compression-worker"])
    expect(told(lines, part)).toEqual([lost, back].sort())
  expect(lines.filter(({ reason }) => reason === "")).toEqual([])
  expect(JSON.stringify(lines)).not.toContain("stack")
})

test("a lost Redis is one line in each process when it goes, and one when it is back", async () => {
  await using opened = new AsyncDisposableStack()
  const { lines, log } = collected()
  const database = opened.use(await testDatabase())
  const proxy = opened.use(await cuttable(inject("redisUrl")))
  await startProcesses(opened, { databaseUrl: database.url, redisUrl: proxy.url, log })
  lines.length = 0

  proxy.cut()
  await triedInVain(proxy)
  proxy.restore()

  const gone = "the queue in Redis can't be reached; trying again"
  const returned = "the queue in Redis can be reached again"
  await expect.poll(() => lines.filter(({ msg }) => msg === returned).length).toBe(2)
  for (const part of ["dispatcher", "compression-worker"])
    expect(told(lines, part)).toEqual([returned, gone].sort())
  expect(JSON.stringify(lines)).not.toContain("stack")
})

async function triedInVain(proxy: Cuttable): Promise<void> {
  await expect.poll(() => proxy.refused).toBeGreaterThan(triesInVain)
}

/** Each process's lines but those of requests, sorted: its parts lose their connections in any order. */
function told(lines: readonly Line[], part: string): string[] {
  return lines
    .filter((line) => line.part === part && line.msg !== "request")
    .map(({ msg }) => msg)
    .sort()
}

function collected(): { lines: Line[]; log: Logger } {
  const lines: Line[] = []
  const destination = { write: (line: string) => void lines.push(JSON.parse(line) as Line) }
  return { lines, log: createLogger({ service: "test", level: "info", destination }) }
}

async function startProcesses(
  opened: AsyncDisposableStack,
  { databaseUrl, redisUrl, log }: { databaseUrl: string; redisUrl?: string; log: Logger },
): Promise<{ url: string }> {
  const storageDir = await mkdtemp(join(tmpdir(), "stillframe-outage-"))
  opened.defer(() => rm(storageDir, { recursive: true, force: true }))
  const common = { databaseUrl, databaseDirectUrl: databaseUrl, redisUrl, secretsKey }
  const api = await startApi(
    {
      ...common,
      listenHost: "127.0.0.1",
      port: 0,
      jwtSecret,
      webhookAllowedCidrs: [],
      compression: { enabled: false },
      snapshotCreate: "async",
      twinWaitMs: 10_000,
      streamHeartbeatMs: 15_000,
    },
    log.child({ part: "api" }),
  )
  opened.use(api)
  const webhooks = { allowedCidrs: [], stackPorts: [] }
  const dispatcher = { ...common, webhooks, queuePrefix: createId(), eventRetentionMs: 86_400_000 }
  opened.use(await startDispatcher(dispatcher, log.child({ part: "dispatcher" })))
  const name = `outage-${createId()}`.toLowerCase()
  const worker = { ...common, storageDir, host: name, pool: name, threads: 1, scrubIntervalMs: 0 }
  opened.use(await startCompressionWorker(worker, log.child({ part: "compression-worker" })))
  return { url: api.url }
}
