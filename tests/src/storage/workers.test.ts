import { execFile } from "node:child_process"
import { mkdir, readdir, rename } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { removeSupersededMemory } from "@stillframe/compression-worker/pool-sweep"
import { inTransaction } from "@stillframe/db/client"
import { poolRegister } from "@stillframe/db/hosts/pools"
import { createOperation } from "@stillframe/db/operations/operations"
import { startDelete } from "@stillframe/db/snapshots/snapshots"
import { compressQueue } from "@stillframe/domain/queues"
import { createLogger } from "@stillframe/runtime/logger"
import { openProblems } from "@stillframe/runtime/problems"
import { claimPool } from "@stillframe/storage/places/claim-pool"
import { poolPlace } from "@stillframe/storage/places/place"
import { expect, test } from "vitest"
import { testStack, untilTrue, type TestStack } from "../pipeline/test-stack.ts"
import { installation, refusal, snapshotIn } from "./installation.ts"

const run = promisify(execFile)

const isRoot = process.getuid?.() === 0
if (!isRoot) console.warn("skipped: only root can mount a file system to be made read-only")

const poolOf = ({ clusterId }: TestStack): string => `pool-${clusterId}`

/** Has a snapshot deleted as the API does. */
async function requestDelete({ db }: TestStack, pool: string, snapshotId: string): Promise<void> {
  await inTransaction(db, async (tx) => {
    await startDelete(tx, snapshotId)
    await createOperation(tx, { kind: "delete", queue: compressQueue(pool), snapshotId })
  })
}

async function untilHandedBack({ db }: TestStack): Promise<void> {
  const handedBack = db.selectFrom("operations").select("attempt").where("wake", ">", 0)
  await expect.poll(() => handedBack.execute(), { timeout: 20_000 }).toEqual([{ attempt: 0 }])
}

test("a compression-worker does not start on a directory that is absent, or that is another installation's", async () => {
  await using stack = await testStack()
  await using other = await installation()
  await other.claim("p", other.dir("theirs"))
  await using first = await stack.startCompressionWorker()
  await first[Symbol.asyncDispose]()

  for (const storageDir of [join(stack.dataDir, "nowhere"), other.dir("theirs")])
    await expect(stack.startCompressionWorker({ storageDir })).rejects.toMatchObject(refusal(storageDir))
  await stack.startCompressionWorker()
})

test("of two machines with a directory each, the second is refused under the name of the first's pool", async () => {
  await using stack = await testStack()
  await stack.startCompressionWorker()
  const second = { host: "second", storageDir: join(stack.dataDir, "second") }

  await expect(stack.startCompressionWorker(second)).rejects.toMatchObject(refusal("set STORAGE_POOL"))
  await stack.startCompressionWorker({ ...second, pool: "second" })
})

test.skipIf(!isRoot)(
  "a deletion waits for a disk that has become read-only, and is done when it is not",
  async () => {
    await using stack = await testStack()
    const { storageDir } = stack
    await mkdir(storageDir)
    await run("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", storageDir])
    await using _mounted = { [Symbol.asyncDispose]: () => run("umount", ["--lazy", storageDir]) as never }
    const remount = (mode: "ro" | "rw"): Promise<unknown> =>
      run("mount", ["-o", `remount,${mode}`, storageDir])
    await stack.startCompressionWorker()
    const id = await snapshotIn(stack, poolOf(stack), storageDir)

    await remount("ro")
    await requestDelete(stack, poolOf(stack), id)
    await untilHandedBack(stack)
    await remount("rw")

    const snapshots = join(storageDir, "snapshots")
    await untilTrue(snapshots, async () => (await readdir(snapshots)).length === 0)
    const rows = stack.db.selectFrom("snapshots").select("id")
    await expect.poll(() => rows.execute()).toEqual([])
  },
)

test("no superseded file counts as removed from a pool that is away", async () => {
  await using stack = await testStack()
  const { db, storageDir } = stack
  const identity = await claimPool(storageDir, poolRegister(db, { pool: "p", host: "h" }))
  const id = await snapshotIn(stack, "p", storageDir)
  await db.updateTable("snapshots").set({ superseded: true, memory_file: "memory.t.zst" }).execute()
  const log = createLogger({ service: "test", level: "silent" })
  const config = { databaseUrl: "", databaseDirectUrl: "", redisUrl: undefined, storageDir, host: "h" }
  const worker = {
    config: { ...config, pool: "p", threads: 1, scrubIntervalMs: 0 },
    pool: poolPlace(storageDir, identity),
    db,
    log,
    problems: openProblems(log),
    committed: () => {},
  }

  await rename(storageDir, `${storageDir}.away`)
  await expect(removeSupersededMemory(worker)).rejects.toMatchObject({ code: "storage_unavailable" })

  const rows = db.selectFrom("snapshots").select(["id", "superseded"])
  expect(await rows.execute()).toEqual([{ id, superseded: true }])
  await rename(`${storageDir}.away`, storageDir)
  await removeSupersededMemory(worker)
  expect(await rows.execute()).toEqual([{ id, superseded: false }])
})

test("a snapshot of another pool than its host has now is not looked for there, nor judged by that", async () => {
  await using stack = await testStack()
  const { db, clusterId } = stack
  await stack.startCaptureWorker()
  const id = await snapshotIn(stack, "elsewhere")
  await db
    .updateTable("snapshots")
    .set({ host: `host-${clusterId}` })
    .execute()

  const { status, body } = await stack.ask("POST", `/snapshots/${id}/fork`, { body: { name: "fork" } })

  expect([status, body.code]).toEqual([503, "storage_unavailable"])
  expect(body.message).toContain('lies in the pool "elsewhere"')
  const verifications = db.selectFrom("operations").select("id").where("kind", "=", "verify")
  expect(await verifications.execute()).toEqual([])
})
