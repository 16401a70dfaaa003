import { execFile } from "node:child_process"
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import type { PauseRecord } from "@stillframe/capture-worker/pause/pause-record"
import type { InstanceResource } from "@stillframe/domain/instance"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import { findQemu } from "@stillframe/hypervisors/process/find-qemu"
import { namesIn } from "@stillframe/storage/directory"
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest"
import { firstGap, untilTicks } from "../hypervisors/test-vm.ts"
import { deleteInstances, serial, serialLines, testStack, untilTrue, type TestStack } from "./test-stack.ts"

const run = promisify(execFile)

/** Pages that were never touched are still looked at: enough of them make a pause that a test can aim at. */
const longPause = { image: "heartbeat", memory_mib: 3_072 }

/** Requests a snapshot and waits until its captor has paused the VM and is saving. */
async function untilPaused(
  stack: TestStack,
  instance: InstanceResource,
  body: object = {},
): Promise<{ snapshot: SnapshotResource; record: PauseRecord }> {
  const snapshot = await stack.snapshot(instance, body)
  const home = join(stack.dataDir, "instances", instance.id)
  await untilTrue(home, async () => (await readdir(home)).includes("pause.json"))
  const record = JSON.parse(await readFile(join(home, "pause.json"), "utf8")) as PauseRecord
  const attempt = join(stack.storageDir, "snapshots", snapshot.id, record.token)
  await untilTrue(attempt, async () => (await stat(join(attempt, "memory"))).size > 0)
  return { snapshot, record }
}

/** The guest prints on: whatever paused it, it runs. */
async function expectRunning(stack: TestStack, instance: InstanceResource): Promise<void> {
  const dir = stack.generationDir(instance)
  await untilTicks(dir, 3, await serialLines(dir))
  expect(firstGap(await serial(dir))).toBeUndefined()
}

async function filesOf(stack: TestStack, snapshotId: string): Promise<string[]> {
  return readdir(join(stack.storageDir, "snapshots", snapshotId)).catch(() => [])
}

describe("with a worker that has room", () => {
  let stack: TestStack
  beforeAll(async () => {
    stack = await testStack()
    await stack.startCaptureWorker()
  })
  afterEach(() => deleteInstances(stack))
  afterAll(() => stack[Symbol.asyncDispose]())

  test("QEMU killed in the pause: the snapshot fails with the reason and leaves no files", async () => {
    const source = await stack.launch("source", longPause)

    // Looked up beforehand: that takes longer on a busy machine than the pause.
    const vm = await findQemu(`stillframe-${stack.clusterId}-${source.id}`)
    const { snapshot, record } = await untilPaused(stack, source)
    process.kill(record.captor.pid, "SIGSTOP")
    process.kill(vm?.pid ?? 0, "SIGKILL")
    process.kill(record.captor.pid, "SIGCONT")
    const settled = await stack.settled(snapshot.id)

    expect(settled).toMatchObject({ status: "failed", size_bytes: 0, error: { code: "hypervisor_gone" } })
    expect(await filesOf(stack, snapshot.id)).toEqual([])
  })

  test("a snapshot deleted in the pause: the VM runs on and nothing is left of it", async () => {
    const source = await stack.launch("source", longPause)

    await using _remover = await stack.startCompressionWorker()
    const { snapshot } = await untilPaused(stack, source)
    await stack.api.request("DELETE", `/snapshots/${snapshot.id}`)
    await expectRunning(stack, source)

    const snapshots = join(stack.storageDir, "snapshots")
    await untilTrue(snapshots, async () => !(await readdir(snapshots)).includes(snapshot.id))
    await expect(stack.api.request("GET", `/snapshots/${snapshot.id}`)).rejects.toMatchObject({ status: 404 })
  })

  test("an instance deleted in the pause of its capture: its VM ends, and the snapshot has failed", async () => {
    const source = await stack.launch("source", longPause)

    const { snapshot } = await untilPaused(stack, source)
    await stack.api.request("DELETE", `/instances/${source.id}`)

    expect(await stack.settled(snapshot.id)).toMatchObject({ status: "failed", error: { code: "cancelled" } })
    expect(await findQemu(`stillframe-${stack.clusterId}-${source.id}`)).toBeUndefined()
    expect(await namesIn(join(stack.dataDir, "instances"))).toEqual([])
  })

  test("memory that does not read back as it was captured is never published, and the raw file stays", async () => {
    const source = await stack.launch("source")
    const { id } = await stack.snapshot(source, { compression: { enabled: true } })
    const dir = join(stack.storageDir, "snapshots", id)
    await stack.until(async () => {
      const { status } = await stack.api.request<SnapshotResource>("GET", `/snapshots/${id}`)
      return status === "ready" || undefined
    })
    const [token = ""] = await readdir(dir)
    const memory = join(dir, token, "memory")
    const bytes = await readFile(memory)
    bytes[bytes.length >> 1]! ^= 1
    await writeFile(memory, bytes)

    await using _compressor = await stack.startCompressionWorker()
    const settled = await stack.settled(id)

    expect(settled).toMatchObject({ status: "ready", compression_state: "error" })
    expect(settled.compression_error).toContain("SHA-256")
    expect((await readdir(join(dir, token))).sort()).toEqual(["kernel", "manifest.json", "memory"])
  })

  test("a VM that can't be launched leaves nothing, and its name is free", async () => {
    const broken = { image: "heartbeat", disks: [{ path: "/etc/passwd", format: "raw" }] }

    await expect(
      stack.api.request("POST", "/instances", { name: "source", launch: broken }),
    ).rejects.toMatchObject({ status: 400, body: expect.stringContaining("HOST_PATHS") })

    expect(await namesIn(join(stack.dataDir, "instances"))).toEqual([])
    await stack.launch("source")
  })
})

test("no room in the pool: the snapshot fails before the VM is touched, and says what would help", async () => {
  await using stack = await testStack()
  const worker = await stack.startCaptureWorker()
  const source = await stack.launch("source")
  await worker[Symbol.asyncDispose]()
  await stack.startCaptureWorker({ spaceFloorBytes: 2 ** 60 })

  const settled = await stack.settled((await stack.snapshot(source)).id)

  expect(settled).toMatchObject({
    status: "failed",
    error: { code: "insufficient_storage", message: expect.stringContaining("Delete snapshots") },
  })
  expect(await filesOf(stack, settled.id)).toEqual([])
  await expectRunning(stack, source)
})

const isRoot = process.getuid?.() === 0
if (!isRoot) console.warn("skipped: only root can mount a small file system to fill up")

test.skipIf(!isRoot)(
  "a disk that fills up in the pause: the snapshot fails with the reason, the VM runs, no file is left",
  async () => {
    await using stack = await testStack()
    await mkdir(stack.storageDir, { recursive: true })
    await run("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", stack.storageDir])
    try {
      // Let through on purpose: what is asked here is what happens when the room was there and is not any
      // more.
      await stack.startCaptureWorker({ spaceFloorBytes: -(2 ** 40) })
      const source = await stack.launch("source")
      await writeFile(join(stack.storageDir, "filler"), Buffer.alloc(1024 * 1024 - 64 * 1024))

      const settled = await stack.settled((await stack.snapshot(source)).id)

      expect(settled).toMatchObject({
        status: "failed",
        error: { code: "insufficient_storage", message: expect.stringContaining("free some space") },
      })
      expect(await filesOf(stack, settled.id)).toEqual([])
      await expectRunning(stack, source)
    } finally {
      await run("umount", ["--lazy", stack.storageDir])
    }
  },
)
