import { execFile } from "node:child_process"
import { randomBytes } from "node:crypto"
import { mkdir, readdir, rm, statfs, truncate, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { clockPlus } from "@stillframe/db/client"
import type { EventEnvelope } from "@stillframe/domain/events"
import type { InstanceResource } from "@stillframe/domain/instance"
import { operationAttempts } from "@stillframe/domain/operation"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { captured } from "../contract/contract-stack.ts"
import { failingFile, hangingFile, whyNoFailingFile } from "./failing-file.ts"
import { testStack, type TestStack } from "./test-stack.ts"

const run = promisify(execFile)
const zstd = { compression: { enabled: true, algorithm: "zstd", level: 1 } }

const isRoot = process.getuid?.() === 0
if (!isRoot) console.warn("skipped: only root can mount a small file system to fill up")
const noFailingFile = whyNoFailingFile()
if (noFailingFile !== undefined) console.warn(`skipped: no disk can be made to fail: ${noFailingFile}`)

/** Resolves when a try of the snapshot's work has failed and the next one is only a matter of time. */
async function untilToBeTriedAgain(stack: TestStack, id: string, kind: "compress" | "verify"): Promise<void> {
  const tried = stack.db
    .selectFrom("operations")
    .select("id")
    .where("snapshot_id", "=", id)
    .where("kind", "=", kind)
    .where("state", "=", "queued")
    .where("attempt", ">", 0)
  await expect.poll(() => tried.execute()).toHaveLength(1)
}

/** Resolves when the snapshot's compression was put off without a try of it. */
async function untilWaits(stack: TestStack, id: string): Promise<void> {
  const waiting = stack.db
    .selectFrom("operations")
    .select("id")
    .where("snapshot_id", "=", id)
    .where("kind", "=", "compress")
    .where("state", "=", "queued")
    .where("attempt", "=", 0)
    .where("not_before", ">", clockPlus(0))
  await expect.poll(() => waiting.execute()).toHaveLength(1)
}

/** Of what waits for its next try: so many tries are over, and the next is due. */
async function dueAfter(stack: TestStack, id: string, tries: number): Promise<void> {
  const waiting = stack.db
    .updateTable("operations")
    .set({ attempt: tries, not_before: clockPlus(0) })
    .where("snapshot_id", "=", id)
    .where("state", "=", "queued")
    .returning("id")
  // It may just be tried, and will be waiting again.
  await expect.poll(() => waiting.execute()).toHaveLength(1)
}

async function problemsOf(stack: TestStack): Promise<unknown> {
  const worker = await stack.db.selectFrom("compression_workers").select("problems").executeTakeFirst()
  return worker?.problems
}

async function types(stack: TestStack, id: string): Promise<string[]> {
  const events = await stack.api.request<EventEnvelope[]>("GET", `/events?snapshot_id=${id}`)
  return events.map(({ type }) => type)
}

/** All that the feed says of a snapshot, once that is told to be complete. */
function typesWhenCompleted(stack: TestStack, id: string): Promise<string[]> {
  return stack.until(async () => {
    const told = await types(stack, id)
    return told.includes("snapshot.completed") ? told : undefined
  })
}

/** A snapshot in a pool that has no room for its frames. */
async function fullPool(
  stack: TestStack,
  source: InstanceResource,
): Promise<{ id: string; dir: string; filler: string } & AsyncDisposable> {
  const { id } = await captured(stack, source.id, zstd)
  const { bavail, bsize } = await statfs(stack.storageDir)
  const filler = join(stack.storageDir, "filler")
  await writeFile(filler, Buffer.alloc(bavail * bsize - 2 * 1024 * 1024))
  const dir = await stack.payloadDir(id)
  return { id, dir, filler, [Symbol.asyncDispose]: () => rm(filler, { force: true }) }
}

describe.skipIf(!isRoot)("in a pool on a small file system", () => {
  let stack: TestStack
  let source: InstanceResource
  beforeAll(async () => {
    stack = await testStack()
    await mkdir(stack.storageDir, { recursive: true })
    await run("mount", ["-t", "tmpfs", "-o", "size=64m", "tmpfs", stack.storageDir])
    await stack.startCaptureWorker({ spaceFloorBytes: -(2 ** 40) })
    // It stays in memory, and cannot be compressed.
    await writeFile(join(stack.imagesDir, "noise"), randomBytes(8 * 1024 * 1024))
    source = await stack.launch("source", {
      kernel: join(stack.imagesDir, "heartbeat.elf"),
      initrd: join(stack.imagesDir, "noise"),
      memory_mib: 96,
    })
  })
  afterAll(async () => {
    await run("umount", ["--lazy", stack.storageDir])
    await stack[Symbol.asyncDispose]()
  })

  test("a full disk: the raw memory stays, and compression goes on once there is room", async () => {
    await using pool = await fullPool(stack, source)
    await using _compressor = await stack.startCompressionWorker()

    await untilToBeTriedAgain(stack, pool.id, "compress")
    expect((await readdir(pool.dir)).filter((name) => name.startsWith("memory"))).toEqual(["memory"])
    expect(await types(stack, pool.id)).toEqual(["snapshot.created", "snapshot.captured"])
    await rm(pool.filler)

    expect((await stack.settled(pool.id)).compression_state).toBe("compressed")
    expect(await typesWhenCompleted(stack, pool.id)).not.toContain("snapshot.compression_failed")
  })

  test("a disk that stays full: after the last try it is an error that says what to do, and can be tried again", async () => {
    await using pool = await fullPool(stack, source)
    await using _compressor = await stack.startCompressionWorker()

    await untilToBeTriedAgain(stack, pool.id, "compress")
    await dueAfter(stack, pool.id, operationAttempts.compress.max - 1)
    const failed = await stack.settled(pool.id)

    expect(failed).toMatchObject({ status: "ready", compression_state: "error" })
    expect(failed.compression_error).toContain("free some space")
    expect((await typesWhenCompleted(stack, pool.id)).slice(2)).toEqual([
      "snapshot.compression_failed",
      "snapshot.completed",
    ])
    expect((await readdir(pool.dir)).filter((name) => name.startsWith("memory"))).toEqual(["memory"])
    await rm(pool.filler)
    const again = await stack.ask("POST", `/snapshots/${pool.id}/compress`, {
      headers: { prefer: "wait=55" },
    })
    expect(again.body.compression_state).toBe("compressed")
  })
})

describe("with files that fail", () => {
  let stack: TestStack
  let source: InstanceResource
  beforeAll(async () => {
    stack = await testStack()
    await stack.startCaptureWorker()
    source = await stack.launch("source")
  })
  afterAll(() => stack[Symbol.asyncDispose]())

  test.skipIf(noFailingFile !== undefined)(
    "a disk that can't be read for a while: compression is tried again, and nothing is called corrupted",
    async () => {
      const { id } = await captured(stack, source.id, zstd)
      const memory = join(await stack.payloadDir(id), "memory")
      const failing = await failingFile(memory)
      await using _compressor = await stack.startCompressionWorker()

      await untilToBeTriedAgain(stack, id, "compress")
      await failing[Symbol.asyncDispose]()

      expect((await stack.settled(id)).compression_state).toBe("compressed")
      expect(await typesWhenCompleted(stack, id)).toEqual([
        "snapshot.created",
        "snapshot.captured",
        "snapshot.compressed",
        "snapshot.completed",
      ])
    },
  )

  test.skipIf(noFailingFile !== undefined)(
    "a file that hangs: its work is given up in words, other work waits, and all goes on when the file answers",
    async () => {
      const [hung, other] = [await captured(stack, source.id, zstd), await captured(stack, source.id, zstd)]
      await using hanging = await hangingFile(join(await stack.payloadDir(hung.id), "memory"))
      await using _compressor = await stack.startCompressionWorker({ stallMs: 3_000 })

      await untilToBeTriedAgain(stack, hung.id, "compress")
      await untilWaits(stack, other.id)
      const problem = { code: "storage_unavailable", message: expect.stringContaining("still hangs") }
      await expect.poll(() => problemsOf(stack)).toEqual([problem])
      await hanging[Symbol.asyncDispose]()
      await expect.poll(() => problemsOf(stack)).toEqual([])

      for (const { id } of [hung, other])
        expect((await stack.settled(id)).compression_state).toBe("compressed")
    },
  )

  test.skipIf(noFailingFile !== undefined)(
    "a verification of what can't be read for a while says nothing until it can",
    async () => {
      const { id } = await captured(stack, source.id)
      const memory = join(await stack.payloadDir(id), "memory")
      const failing = await failingFile(memory)
      await using _compressor = await stack.startCompressionWorker()

      const asked = stack.ask("POST", `/snapshots/${id}/verify`, { headers: { prefer: "wait=55" } })
      await untilToBeTriedAgain(stack, id, "verify")
      expect((await stack.ask("GET", `/snapshots/${id}`)).body).not.toHaveProperty("corrupted_at")
      await failing[Symbol.asyncDispose]()

      const { status, body } = await asked
      expect(status).toBe(200)
      expect(body).toHaveProperty("verified_at")
    },
  )

  test("memory that became shorter is not tried again: no try can bring it back", async () => {
    const { id } = await captured(stack, source.id, zstd)
    await truncate(join(await stack.payloadDir(id), "memory"), 4096)
    await using _compressor = await stack.startCompressionWorker()

    expect((await stack.settled(id)).compression_state).toBe("error")
    const [operation] = await stack.db
      .selectFrom("operations")
      .select(["attempt", "error_code"])
      .where("snapshot_id", "=", id)
      .where("kind", "=", "compress")
      .execute()
    expect(operation).toEqual({ attempt: 1, error_code: "corrupted" })
  })
})
