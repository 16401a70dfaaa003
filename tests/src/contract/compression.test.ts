import { createHash, randomBytes } from "node:crypto"
import { readdir, readFile, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import type { EventEnvelope } from "@stillframe/domain/events"
import type { InstanceResource } from "@stillframe/domain/instance"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import { afterAll, beforeAll, expect, test } from "vitest"
import { readEvents } from "../api/event-reader.ts"
import { forkRuns } from "../pipeline/fork-runs.ts"
import { expireLeases, serialLines, testStack, untilTrue, type TestStack } from "../pipeline/test-stack.ts"
import { captured } from "./contract-stack.ts"

const zstd = { compression: { enabled: true, algorithm: "zstd", level: 1 } }
const slow = { compression: { enabled: true, algorithm: "zstd", level: 19 } }
const noiseBytes = 8 * 1024 * 1024

let stack: TestStack
let vm: InstanceResource
/** Its memory holds what can't be compressed, so that a high level takes seconds for it. */
let noisy: InstanceResource
beforeAll(async () => {
  stack = await testStack()
  await stack.startCaptureWorker()
  vm = await stack.launch("vm")
  noisy = await launchNoisy("noisy", noiseBytes)
})
afterAll(() => stack[Symbol.asyncDispose]())

async function launchNoisy(name: string, bytes: number): Promise<InstanceResource> {
  await writeFile(join(stack.imagesDir, name), randomBytes(bytes))
  return stack.launch(name, {
    kernel: join(stack.imagesDir, "heartbeat.elf"),
    initrd: join(stack.imagesDir, name),
    memory_mib: 96,
  })
}

async function get(id: string): Promise<SnapshotResource> {
  return (await stack.ask("GET", `/snapshots/${id}`)).body
}

async function untilGone(dir: string, name: RegExp): Promise<void> {
  await untilTrue(dir, async () => !(await readdir(dir)).some((file) => name.test(file)))
}

/** Waits until a worker is writing the snapshot's frames. */
async function untilCompressing(id: string): Promise<string> {
  const dir = await stack.payloadDir(id)
  await untilTrue(dir, async () => (await readdir(dir)).some((file) => file.endsWith(".zst")))
  expect((await get(id)).compression_state).toBe("compressing")
  return dir
}

test("case 36: sizes of a compression are shown only when it has succeeded, and its error only when it has failed", async () => {
  const none = await captured(stack, vm.id)
  const pending = await captured(stack, vm.id, zstd)
  const broken = await captured(stack, vm.id, zstd)
  const memory = join(await stack.payloadDir(broken.id), "memory")
  const bytes = await readFile(memory)
  bytes[bytes.length >> 1]! ^= 1
  await writeFile(memory, bytes)

  for (const snapshot of [none, pending]) {
    for (const member of ["compressed_size_bytes", "uncompressed_size_bytes", "compression_error"])
      expect(snapshot).not.toHaveProperty(member)
  }
  expect([none.compression_state, pending.compression_state]).toEqual(["none", "compressing"])
  await using _worker = await stack.startCompressionWorker()
  const [failed, compressed] = [await stack.settled(broken.id), await stack.settled(pending.id)]
  expect(failed).toMatchObject({ compression_state: "error", compression_error: expect.any(String) })
  expect(failed).not.toHaveProperty("compressed_size_bytes")
  expect(failed).not.toHaveProperty("uncompressed_size_bytes")
  expect(compressed.compression_state).toBe("compressed")
  expect(compressed).not.toHaveProperty("compression_error")
})

test("case 35: reading on, it comes to compressed: both sizes are there, the raw memory is gone, the whole is smaller", async () => {
  const before = await captured(stack, vm.id, zstd)
  await using _worker = await stack.startCompressionWorker()
  const dir = await stack.payloadDir(before.id)
  const rawBytes = (await stat(join(dir, "memory"))).size

  const after = await stack.settled(before.id)
  await untilGone(dir, /^memory$/)

  expect(after.compression_state).toBe("compressed")
  expect(after.uncompressed_size_bytes).toBe(rawBytes)
  const frames = (await readdir(dir)).find((file) => file.endsWith(".zst")) ?? ""
  expect(after.compressed_size_bytes).toBe((await stat(join(dir, frames))).size)
  expect(after.size_bytes).toBe(before.size_bytes - rawBytes + (after.compressed_size_bytes ?? Number.NaN))
  const stats = await Promise.all((await readdir(dir)).map((file) => stat(join(dir, file))))
  expect(after.stored_bytes).toBe(stats.reduce((sum, { blocks }) => sum + blocks * 512, 0))
})

test("case 37: a fork while it is being compressed succeeds, and so does the compression", async () => {
  await using _worker = await stack.startCompressionWorker()
  const from = { source: noisy, tick: await serialLines(stack.generationDir(noisy)) }
  const { id } = await captured(stack, noisy.id, slow)
  await untilCompressing(id)

  await forkRuns(stack, id, { name: "early", ...from })

  expect((await stack.settled(id)).compression_state).toBe("compressed")
  await forkRuns(stack, id, { name: "late", ...from })
})

test("case 37: a restore while it is being compressed succeeds, and the snapshot stays usable", async () => {
  const source = await stack.launch("restored")
  // Nobody compresses yet: it is compressing all the while.
  const { id } = await captured(stack, source.id, zstd)
  await stack.api.request("POST", `/instances/${source.id}/stop`)

  const reply = await stack.ask("POST", `/instances/${source.id}/snapshots/${id}/restore`, { body: {} })

  expect([reply.status, reply.body.state]).toEqual([200, "Running"])
  expect((await get(id)).compression_state).toBe("compressing")
  await using _worker = await stack.startCompressionWorker()
  expect((await stack.settled(id)).compression_state).toBe("compressed")
  await stack.api.request("DELETE", `/instances/${source.id}`)
})

test("who follows the events of a snapshot sees its compression go on", async () => {
  // Four times as much of it: the first word comes after a second.
  const noisier = await launchNoisy("noisier", 4 * noiseBytes)
  const { id } = await captured(stack, noisier.id, slow)
  const stream = { api: { url: stack.url } }
  await using reader = await readEvents(stream, `?snapshot_id=${id}`)
  await reader.next()
  await using _worker = await stack.startCompressionWorker()

  const seen = await reader.until(({ event }) => event === "snapshot.completed")

  const told = seen.find(({ event }) => event === "snapshot.progress")
  expect(told?.data).toMatchObject({ snapshot_id: id, compression_state: "compressing" })
  expect(told?.data.progress).toBeGreaterThan(0)
  expect(told?.data.progress).toBeLessThanOrEqual(1)
})

test("case 38: a delete while it is being compressed is 204, then 404, and leaves no file", async () => {
  await using _worker = await stack.startCompressionWorker()
  const { id } = await captured(stack, noisy.id, slow)
  await untilCompressing(id)

  const { status, text } = await stack.ask("DELETE", `/snapshots/${id}`)

  expect([status, text]).toEqual([204, ""])
  expect((await stack.ask("GET", `/snapshots/${id}`)).status).toBe(404)
  await untilGone(join(stack.storageDir, "snapshots"), new RegExp(`^${id}$`))
})

test("case 39: a worker killed while it compresses: the raw memory is whole, and the next worker ends what it began", async () => {
  const killed = await stack.spawn("compression-worker")
  const from = { source: noisy, tick: await serialLines(stack.generationDir(noisy)) }
  const { id } = await captured(stack, noisy.id, slow)
  const dir = await untilCompressing(id)

  killed.child.kill("SIGKILL")
  await killed.ended
  const manifest = await readFile(join(dir, "manifest.json"), "utf8")
  const sha256 = createHash("sha256")
    .update(await readFile(join(dir, "memory")))
    .digest("hex")
  expect(manifest).toContain(sha256)
  expect((await get(id)).compression_state).toBe("compressing")
  await expireLeases(stack)
  await using _worker = await stack.startCompressionWorker()

  expect((await stack.settled(id)).compression_state).toBe("compressed")
  await untilGone(dir, /^memory$/)
  await forkRuns(stack, id, { name: "after-crash", ...from })
})

test("a worker that stands still for longer than its lease publishes nothing: the next one's file is the snapshot's", async () => {
  const held = await stack.spawn("compression-worker")
  const { id } = await captured(stack, noisy.id, slow)
  const dir = await untilCompressing(id)
  held.child.kill("SIGSTOP")
  await expireLeases(stack)
  await using _worker = await stack.startCompressionWorker()
  const settled = await stack.settled(id)
  const file = (await readdir(dir)).find((name) => name.endsWith(".zst"))

  held.child.kill("SIGCONT")
  await untilGone(dir, /^memory$/)
  held.child.kill("SIGTERM")

  expect(await held.ended).toBe(0)
  expect(await get(id)).toEqual(settled)
  expect((await readdir(dir)).filter((name) => name.startsWith("memory"))).toEqual([file])
  const events: EventEnvelope[] = (await stack.ask("GET", `/events?snapshot_id=${id}`)).body
  expect(events.filter(({ type }) => type === "snapshot.compressed")).toHaveLength(1)
})

test("case 40: forks of a compressed snapshot go on with the very memory, and it stays as it was", async () => {
  await using _worker = await stack.startCompressionWorker()
  const from = { source: vm, tick: await serialLines(stack.generationDir(vm)) }
  const { id } = await captured(stack, vm.id, zstd)
  const before = await stack.settled(id)
  const dir = await stack.payloadDir(id)
  await untilGone(dir, /^memory$/)

  for (const name of ["first", "second"]) await forkRuns(stack, id, { name, ...from })

  expect(await get(id)).toEqual(before)
  expect((await stat(join(dir, (await readdir(dir)).find((file) => file.endsWith(".zst")) ?? ""))).size).toBe(
    before.compressed_size_bytes,
  )
  const listed: SnapshotResource[] = (await stack.ask("GET", "/snapshots")).body
  expect(listed.map((snapshot) => snapshot.id)).toContain(id)
})
