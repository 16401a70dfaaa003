import { randomBytes } from "node:crypto"
import { readdir, readFile, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { openReader } from "@stillframe/db/snapshots/readers"
import type { EventEnvelope } from "@stillframe/domain/events"
import type { InstanceResource } from "@stillframe/domain/instance"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import { afterAll, beforeAll, expect, test } from "vitest"
import type { Reply } from "../api/test-api.ts"
import { captured } from "../contract/contract-stack.ts"
import { flipBit } from "./flip-bit.ts"
import { forkRuns } from "./fork-runs.ts"
import { expireLeases, serialLines, testStack, untilTrue, type TestStack } from "./test-stack.ts"

const zstd = { enabled: true, algorithm: "zstd", level: 1 }
const lz4 = { enabled: true, algorithm: "lz4", level: 0 }

let stack: TestStack
let vm: InstanceResource
beforeAll(async () => {
  stack = await testStack()
  await stack.startCaptureWorker()
  vm = await stack.launch("vm")
})
afterAll(() => stack[Symbol.asyncDispose]())

async function memoryFiles(id: string): Promise<string[]> {
  return (await readdir(await stack.payloadDir(id))).filter((name) => name.startsWith("memory"))
}

/** Resolves with the one that is left. */
async function untilOneMemoryFile(id: string): Promise<string> {
  const dir = await stack.payloadDir(id)
  await untilTrue(dir, async () => (await memoryFiles(id)).length === 1)
  const [name = ""] = await memoryFiles(id)
  return join(dir, name)
}

function compress(id: string, body?: object): Promise<Reply> {
  return stack.ask("POST", `/snapshots/${id}/compress`, {
    headers: { prefer: "wait=55" },
    ...(body !== undefined && { body }),
  })
}

function events(id: string): Promise<EventEnvelope[]> {
  return stack.api.request<EventEnvelope[]>("GET", `/events?snapshot_id=${id}`)
}

async function untilType(id: string, type: string): Promise<string[]> {
  return stack.until(async () => {
    const types = (await events(id)).map((event) => event.type)
    return types.includes(type as (typeof types)[number]) ? types : undefined
  })
}

test("a snapshot that was not compressed can be later, and then otherwise: the memory is the same, the sizes are true", async () => {
  await using _worker = await stack.startCompressionWorker()
  const tick = await serialLines(stack.generationDir(vm))
  const { id } = await captured(stack, vm.id)

  const first = await compress(id, { algorithm: "lz4" })
  expect([first.status, first.body.compression_state, first.body.compression]).toEqual([
    200,
    "compressed",
    lz4,
  ])
  expect(await untilOneMemoryFile(id)).toMatch(/\.lz4$/)
  await forkRuns(stack, id, { name: "copy", source: vm, tick })

  const second = await compress(id, { algorithm: "zstd", level: 9 })
  expect(second.body.compression).toEqual({ enabled: true, algorithm: "zstd", level: 9 })
  const file = await untilOneMemoryFile(id)
  expect(file).toMatch(/\.zst$/)
  await forkRuns(stack, id, { name: "copy", source: vm, tick })

  const { compressed_size_bytes: bytes, uncompressed_size_bytes: rawBytes } = second.body
  expect(bytes).toBe((await stat(file)).size)
  expect(bytes).toBeLessThan(first.body.compressed_size_bytes)
  expect(rawBytes).toBe(first.body.uncompressed_size_bytes)
  expect(first.body.size_bytes - second.body.size_bytes).toBe(first.body.compressed_size_bytes - bytes)
  const told = await stack.until(async () => {
    const types = (await events(id)).map(({ type }) => type)
    return types.length === 7 ? types : undefined
  })
  expect(told).toEqual([
    "snapshot.created",
    "snapshot.captured",
    "snapshot.completed",
    "snapshot.updated",
    "snapshot.compressed",
    "snapshot.updated",
    "snapshot.compressed",
  ])
})

test("compressing as it is compressed already changes nothing and is answered at once", async () => {
  await using _worker = await stack.startCompressionWorker()
  const { id } = await captured(stack, vm.id, { compression: zstd })
  const before = await stack.settled(id)

  const same = await stack.ask("POST", `/snapshots/${id}/compress`, { body: { algorithm: "zstd", level: 1 } })
  const unasked = await stack.ask("POST", `/snapshots/${id}/compress`)

  expect([same.status, unasked.status]).toEqual([200, 200])
  expect([same.body, unasked.body]).toEqual([before, before])
})

test("a compression that failed keeps the raw file, and is tried again when that is as it was", async () => {
  const { id } = await captured(stack, vm.id, { compression: zstd })
  const memory = join(await stack.payloadDir(id), "memory")
  await flipBit(memory)
  await using _worker = await stack.startCompressionWorker()
  expect((await stack.settled(id)).compression_state).toBe("error")
  await untilType(id, "snapshot.corrupted")
  expect(await memoryFiles(id)).toEqual(["memory"])

  await flipBit(memory)
  expect((await compress(id)).status).toBe(409)
  await stack.ask("POST", `/snapshots/${id}/verify`, { headers: { prefer: "wait=55" } })
  const { status, body } = await compress(id)

  expect([status, body.compression_state, body.compression]).toEqual([200, "compressed", zstd])
  expect(body).not.toHaveProperty("compression_error")
  const types = await untilType(id, "snapshot.compressed")
  expect(types.filter((type) => type === "snapshot.completed")).toHaveLength(1)
})

test("another compression of damaged frames fails, and leaves the snapshot as it was compressed before", async () => {
  await using _worker = await stack.startCompressionWorker()
  const { id } = await captured(stack, vm.id, { compression: zstd })
  const before = await stack.settled(id)
  const frames = await untilOneMemoryFile(id)
  await flipBit(frames)
  const damaged = await readFile(frames)

  const { status, body } = await compress(id, { algorithm: "lz4" })

  expect(status).toBe(200)
  expect(body).toMatchObject({ compression_state: "compressed", compression: zstd })
  expect(body.compression_error).toContain("damaged")
  expect(body.compressed_size_bytes).toBe(before.compressed_size_bytes)
  const types = await untilType(id, "snapshot.corrupted")
  expect(types.slice(3)).toEqual([
    "snapshot.completed",
    "snapshot.updated",
    "snapshot.compression_failed",
    "snapshot.corrupted",
  ])
  expect((await readFile(frames)).equals(damaged)).toBe(true)
  expect(await memoryFiles(id)).toEqual([frames.split("/").at(-1)])
})

test("frames that somebody reads stay through another compression, until they are read", async () => {
  await using _worker = await stack.startCompressionWorker()
  const { id } = await captured(stack, vm.id, { compression: zstd })
  await stack.settled(id)
  const old = await untilOneMemoryFile(id)
  const bytes = await readFile(old)
  const reader = await openReader(stack.db, id, { onRenewalError() {} })

  expect((await compress(id, { algorithm: "lz4" })).body.compression_state).toBe("compressed")
  expect((await compress(id, { algorithm: "lz4", level: 1 })).body.compression_state).toBe("compressed")
  expect((await readFile(old)).equals(bytes)).toBe(true)

  await reader[Symbol.asyncDispose]()
  expect(await untilOneMemoryFile(id)).toMatch(/\.lz4$/)
})

test("a worker that stops hands another compression back, and the next one ends it", async () => {
  const stopped = await stack.startCompressionWorker()
  const { id } = await captured(stack, vm.id, { compression: zstd })
  const before = await stack.settled(id)
  const dir = await stack.payloadDir(id)
  const accepted = await stack.ask("POST", `/snapshots/${id}/compress`, { body: { level: 19 } })
  expect([accepted.status, accepted.body.compression_state]).toEqual([202, "compressing"])
  await stopped[Symbol.asyncDispose]()

  await using _worker = await stack.startCompressionWorker()
  const after: SnapshotResource = await stack.settled(id)

  expect(after.compression).toEqual({ enabled: true, algorithm: "zstd", level: 19 })
  expect(after.uncompressed_size_bytes).toBe(before.uncompressed_size_bytes)
  await untilTrue(dir, async () => (await memoryFiles(id)).length === 1)
})

test("a worker killed in another compression leaves nothing: the next one ends it, and the frames before serve until then", async () => {
  await writeFile(join(stack.imagesDir, "noise"), randomBytes(8 * 1024 * 1024))
  const noisy = await stack.launch("noisy", {
    kernel: join(stack.imagesDir, "heartbeat.elf"),
    initrd: join(stack.imagesDir, "noise"),
    memory_mib: 96,
  })
  const killed = await stack.spawn("compression-worker")
  const tick = await serialLines(stack.generationDir(noisy))
  const { id } = await captured(stack, noisy.id, { compression: zstd })
  await stack.settled(id)
  const before = await untilOneMemoryFile(id)
  await stack.ask("POST", `/snapshots/${id}/compress`, { body: { level: 19 } })
  const dir = await stack.payloadDir(id)
  // What it unpacks, and what it makes of that.
  await untilTrue(dir, async () => (await memoryFiles(id)).length === 3)

  killed.child.kill("SIGKILL")
  await killed.ended
  expect(await memoryFiles(id)).toHaveLength(3)
  await forkRuns(stack, id, { name: "meanwhile", source: noisy, tick })
  await expireLeases(stack)
  await using _worker = await stack.startCompressionWorker()

  expect((await stack.settled(id)).compression).toEqual({ ...zstd, level: 19 })
  expect(await untilOneMemoryFile(id)).not.toBe(before)
  await forkRuns(stack, id, { name: "afterwards", source: noisy, tick })
})
