import { readdir, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import type { EventEnvelope } from "@stillframe/domain/events"
import type { InstanceResource } from "@stillframe/domain/instance"
import { findQemu } from "@stillframe/hypervisors/process/find-qemu"
import { startReceiver } from "@stillframe/testing/receiver"
import { Webhook } from "standardwebhooks"
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest"
import { firstGap, ticks, untilTicks } from "../hypervisors/test-vm.ts"
import { withDisk } from "./instance-acts.ts"
import { deleteInstances, serial, serialLines, testStack, untilTrue, type TestStack } from "./test-stack.ts"

const zstd = { compression: { enabled: true, algorithm: "zstd", level: 1 } }
const lz4 = { compression: { enabled: true, algorithm: "lz4", level: 0 } }

let stack: TestStack
beforeAll(async () => {
  stack = await testStack()
  await stack.startCaptureWorker()
  await stack.startCompressionWorker()
})
afterEach(() => deleteInstances(stack))
afterAll(() => stack[Symbol.asyncDispose]())

async function payload(stack: TestStack, id: string): Promise<string[]> {
  const [token = ""] = await readdir(join(stack.storageDir, "snapshots", id))
  return readdir(join(stack.storageDir, "snapshots", id, token))
}

async function fork(stack: TestStack, id: string, name: string): Promise<InstanceResource> {
  const instance = await stack.api.request<InstanceResource>("POST", `/snapshots/${id}/fork`, { name })
  await untilTicks(stack.generationDir(instance), 4)
  return instance
}

/** A fork's console begins with the rest of the line that its source was printing when it stood still. */
function afterPartialLine(text: string): string {
  return text.slice(text.indexOf("\n") + 1)
}

describe.each(["postgres", "redis"] as const)("on the %s queue", (engine) => {
  test("a snapshot is captured, compressed, told of by a signed webhook, and forked where the guest stood", async () => {
    await using queued = await testStack({ engine })
    await queued.startCaptureWorker()
    await queued.startCompressionWorker()
    await using receiver = await startReceiver()
    const hook = await queued.api.request<{ secret: string }>("POST", "/webhooks", {
      url: receiver.url,
      event_types: ["snapshot.completed"],
    })
    const source = await queued.launch("source")
    const before = await serialLines(queued.generationDir(source))

    const requested = await queued.snapshot(source, zstd)
    const [delivery] = await receiver.received(1)
    const after = await serialLines(queued.generationDir(source))
    const copy = await fork(queued, requested.id, "copy")

    const event = new Webhook(hook.secret).verify(
      delivery?.body ?? "",
      delivery?.headers as Record<string, string>,
    )
    const snapshot = (event as EventEnvelope).data
    expect(snapshot).toMatchObject({ id: requested.id, status: "ready", compression_state: "compressed" })
    const printed = afterPartialLine(await serial(queued.generationDir(copy)))
    const [first] = ticks(printed)
    expect(first?.tick).toBeGreaterThan(before)
    expect(first?.tick).toBeLessThanOrEqual(after + 1)
    expect(first?.sum).toBe(ticks(await serial(queued.generationDir(source)))[0]?.sum)
    expect(firstGap(printed)).toBeUndefined()
    await untilTicks(queued.generationDir(source), 3, after)
    expect(firstGap(await serial(queued.generationDir(source)))).toBeUndefined()
  })
})

test("the raw memory goes once the frames are published, and sizes tell what is on disk", async () => {
  const source = await stack.launch("source")

  const { id } = await stack.snapshot(source, lz4)
  const snapshot = await stack.settled(id)
  const [token = ""] = await readdir(join(stack.storageDir, "snapshots", id))
  const dir = join(stack.storageDir, "snapshots", id, token)
  await untilTrue(dir, async () => !(await readdir(dir)).includes("memory"))

  expect((await payload(stack, id)).sort()).toEqual([
    "kernel",
    "manifest.json",
    expect.stringMatching(/^memory\..*\.lz4$/),
  ])
  expect(snapshot.compressed_size_bytes).toBeLessThan(snapshot.uncompressed_size_bytes ?? 0)
  expect(snapshot.size_bytes).toBeGreaterThan(snapshot.compressed_size_bytes ?? 0)
})

test("a snapshot's disk layers can be written by nobody, the VM's own user included", async () => {
  const path = join(stack.imagesDir, "disk.raw")
  await writeFile(path, Buffer.alloc(1024 * 1024, 7))
  const source = await stack.launch("source", { image: "heartbeat", disks: [{ path, format: "raw" }] })

  const { id } = await stack.settled((await stack.snapshot(source)).id)
  const again = await stack.settled((await stack.snapshot(source)).id)

  const [token = ""] = await readdir(join(stack.storageDir, "snapshots", id))
  const layer = await stat(join(stack.storageDir, "snapshots", id, token, "disk0.0.qcow2"))
  expect(layer.mode & 0o777).toBe(0o444)
  expect(layer.uid).toBe(process.getuid?.())
  expect(again.status).toBe("ready")
})

test("all files of a snapshot are read-only, and only what VMs open by themselves is open to them", async () => {
  const path = join(stack.imagesDir, "disk.raw")
  await writeFile(path, Buffer.alloc(1024 * 1024, 7))
  const source = await stack.launch("source", { image: "heartbeat", disks: [{ path, format: "raw" }] })
  const modesOf = async ({ id }: { id: string }): Promise<Record<string, string>> => {
    const dir = await stack.payloadDir(id)
    const modes = (await readdir(dir)).map(async (name) => {
      const { mode } = await stat(join(dir, name))
      return [name.replace(/\.\w+\.zst$/, ".zst"), (mode & 0o777).toString(8)] as const
    })
    return Object.fromEntries(await Promise.all(modes))
  }
  const open = { kernel: "444", "disk0.0.qcow2": "444", "disk0.base": "444" }

  const raw = await stack.settled((await stack.snapshot(source)).id)
  expect(await modesOf(raw)).toEqual({ ...open, memory: "400", "manifest.json": "400" })

  const packed = await stack.settled((await stack.snapshot(source, zstd)).id)
  await expect
    .poll(() => modesOf(packed))
    .toMatchObject({ ...open, "disk0.1.qcow2": "444", "memory.zst": "400", "manifest.json": "400" })
})

test("a chain of disk layers that has become long is merged, and every snapshot keeps its own", async () => {
  const source = await withDisk(stack, "source")
  const dir = stack.generationDir(source)
  const layers = async (): Promise<string[]> => (await readdir(dir)).filter((name) => name.endsWith(".qcow2"))

  let first: string | undefined
  for (let count = 0; count < 10; count += 1) {
    const { id } = await stack.settled((await stack.snapshot(source)).id)
    first ??= id
  }
  await untilTrue(dir, async () => (await layers()).length <= 3)
  const copy = await fork(stack, first ?? "", "copy")
  const before = await serialLines(dir)

  await untilTicks(dir, 3, before)
  expect(firstGap(await serial(dir))).toBeUndefined()
  expect(firstGap(afterPartialLine(await serial(stack.generationDir(copy))))).toBeUndefined()
})

test("source, snapshot and forks with disks can be deleted in any order, and the others go on", async () => {
  const path = join(stack.imagesDir, "disk.raw")
  await writeFile(path, Buffer.alloc(1024 * 1024, 7))
  const source = await stack.launch("source", { image: "heartbeat", disks: [{ path, format: "raw" }] })
  const first = await stack.settled((await stack.snapshot(source, zstd)).id)
  const second = await stack.settled((await stack.snapshot(source)).id)
  const fork1 = await fork(stack, first.id, "fork1")

  await stack.api.request("DELETE", `/instances/${source.id}`)
  await stack.api.request("DELETE", `/snapshots/${first.id}`)
  const fork2 = await fork(stack, second.id, "fork2")
  await stack.api.request("DELETE", `/instances/${fork1.id}`)
  const before = await serialLines(stack.generationDir(fork2))

  await untilTicks(stack.generationDir(fork2), 3, before)
  expect(firstGap(afterPartialLine(await serial(stack.generationDir(fork2))))).toBeUndefined()
  const snapshots = join(stack.storageDir, "snapshots")
  await untilTrue(snapshots, async () => !(await readdir(snapshots)).includes(first.id))
  expect(await readdir(join(stack.dataDir, "instances"))).toEqual([fork2.id])
})

test("every snapshot's events come in the order of its life, numbered without a gap", async () => {
  const source = await stack.launch("source")
  const [{ sequence: first } = { sequence: 0 }] = await eventsOf(stack, source.id, 1)

  const { id } = await stack.settled((await stack.snapshot(source, zstd)).id)
  await stack.api.request("DELETE", `/snapshots/${id}`)
  await stack.api.request("DELETE", `/instances/${source.id}`)
  await Promise.all([eventsOf(stack, id, 5), eventsOf(stack, source.id, 3)])
  const events = await stack.api.request<EventEnvelope[]>("GET", `/events?after=${first - 1}&limit=100`)

  expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, index) => first + index))
  expect(events.filter(({ subject }) => subject.id === id).map(({ type }) => type)).toEqual([
    "snapshot.created",
    "snapshot.captured",
    "snapshot.compressed",
    "snapshot.completed",
    "snapshot.deleted",
  ])
  expect(events.filter(({ subject }) => subject.id === source.id).map(({ type }) => type)).toEqual([
    "instance.created",
    "instance.state_changed",
    "instance.deleted",
  ])
})

test("a guest whose process ends by itself is shown as stopped, with the reason", async () => {
  const source = await stack.launch("source")

  const vm = await findQemu(`stillframe-${stack.clusterId}-${source.id}`)
  process.kill(vm?.pid ?? 0, "SIGKILL")
  const events = await eventsOf(stack, source.id, 3)

  expect(events.at(-1)).toMatchObject({
    type: "instance.state_changed",
    data: { state: "Stopped", exit_message: expect.stringContaining("ended without a word") },
  })
})

/** All that the feed says of an instance or a snapshot, once that is `count` events. */
function eventsOf(stack: TestStack, id: string, count: number): Promise<EventEnvelope[]> {
  return stack.until(async () => {
    const events = await stack.api.request<EventEnvelope[]>("GET", "/events?limit=1000")
    const told = events.filter(({ subject }) => subject.id === id)
    return told.length >= count ? told : undefined
  })
}
