import { existsSync } from "node:fs"
import { chmod, mkdir, mkdtemp, readdir, rm, stat } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { readPauseRecord } from "@stillframe/capture-worker/pause/pause-record"
import { takeOver } from "@stillframe/capture-worker/pause/takeover"
import type { InstanceResource } from "@stillframe/domain/instance"
import { readVmRecord } from "@stillframe/hypervisors/process/vm-record"
import { isVmUser } from "@stillframe/hypervisors/process/vm-users"
import { vmms } from "@stillframe/hypervisors/vmms"
import { fakeBinary } from "@stillframe/testing/fake-binary"
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest"
import { userOf } from "../hypervisors/hosted-vm.ts"
import { forkRuns } from "./fork-runs.ts"
import { leavePause } from "./left-pause.ts"
import { deleteInstances, serialLines, testStack, untilTrue, vmUids, type TestStack } from "./test-stack.ts"

const zstd = { compression: { enabled: true, algorithm: "zstd", level: 1 } }
const roomOfNoDisk = Number.MAX_SAFE_INTEGER

/** A folder that every user can walk to, with a program and, where the system has that, in memory. */
async function reachable(): Promise<AsyncDisposable & { folder: string; binary: string; staging: string }> {
  const folder = await mkdtemp(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "stillframe-host-"))
  await chmod(folder, 0o711)
  const staging = join(folder, "staging")
  await mkdir(staging, { mode: 0o711 })
  const programs = await mkdtemp(join(tmpdir(), "stillframe-programs-"))
  await chmod(programs, 0o711)
  return {
    folder,
    staging,
    binary: await fakeBinary(programs, "firecracker", "1.16.1"),
    async [Symbol.asyncDispose]() {
      for (const made of [folder, programs]) await rm(made, { recursive: true })
    },
  }
}

async function launch(stack: TestStack, name: string): Promise<InstanceResource> {
  const instance = await stack.api.request<InstanceResource>("POST", "/instances", {
    name,
    hypervisor: "firecracker",
    launch: { image: "heartbeat" },
  })
  const dir = stack.generationDir(instance)
  await untilTrue(dir, async () => (await serialLines(dir)) >= 3)
  return instance
}

describe("a host that names a tmpfs", () => {
  const opened = new AsyncDisposableStack()
  let host: Awaited<ReturnType<typeof reachable>>
  let stack: TestStack
  let settings: Parameters<TestStack["startCaptureWorker"]>[0]
  let worker: AsyncDisposable
  beforeAll(async () => {
    host = opened.use(await reachable())
    stack = opened.use(await testStack())
    settings = { vmms: new Map([["firecracker", { path: host.binary }]]), staging: host.staging }
    worker = await stack.startCaptureWorker(settings)
  })
  afterEach(() => deleteInstances(stack))
  afterAll(() => opened.disposeAsync())

  test("saves there, and leaves nothing there that no captor needs", async () => {
    await worker[Symbol.asyncDispose]()
    const [own = ""] = await readdir(host.staging)
    const dir = join(host.staging, own)
    await mkdir(join(dir, "saving-forgotten.64"))
    worker = await stack.startCaptureWorker(settings)
    await using _compressor = await stack.startCompressionWorker()
    expect(await readdir(dir)).toEqual([])

    const source = await launch(stack, "source")
    const { id } = await stack.snapshot(source, zstd)
    expect(await stack.settled(id)).toMatchObject({ status: "ready", compression_state: "compressed" })
    await forkRuns(stack, id, { name: "copy", source, tick: 3 })
    await stack.api.request("POST", `/instances/${source.id}/standby`)
    const back = await stack.api.request<InstanceResource>("POST", `/instances/${source.id}/restore`)

    expect(back.state).toBe("Running")
    expect(await readdir(dir)).toEqual([])
    expect((await stat(dir)).mode & 0o777).toBe(0o711)
    const { process: vm } = await readVmRecord(stack.generationDir(source, 2))
    // Only root can be another.
    const { uid } = userOf(vm)
    expect(process.getuid?.() === 0 ? isVmUser(vmUids, uid) : uid === process.getuid?.()).toBe(true)
  })

  test("what a dead captor staged is removed by what lies on the host alone", async () => {
    const { binary, staging } = host
    const source = await launch(stack, "paused")
    const dir = stack.generationDir(source)
    const { config } = await readVmRecord(dir)
    await (await vmms.get("firecracker")?.())?.control(dir, config).pause()
    const left = join(staging, "saving-dead.64")
    await mkdir(left)
    const home = await leavePause(stack, source, {
      hypervisor: { name: "firecracker", binary, qemuImg: "", staging },
      token: "dead",
    })

    // The host's sweep may be first.
    await takeOver(stack.dataDir, source.id)

    await expect.poll(() => readPauseRecord(home)).toBeUndefined()
    expect(existsSync(left)).toBe(false)
  })
})

test.skipIf(process.getuid?.() !== 0)(
  "a tmpfs that the VMs' user can't walk to is no setting to start with",
  async () => {
    await using host = await reachable()
    await using stack = await testStack()
    const { binary, staging } = host
    await chmod(host.folder, 0o700)

    const attempt = stack.startCaptureWorker({ vmms: new Map([["firecracker", { path: binary }]]), staging })

    await expect(attempt).rejects.toMatchObject({
      code: "invalid_request",
      message: expect.stringContaining("CAPTURE_STAGING: VMs of firecracker run as users such as 21000"),
    })
  },
)

test("frames that a VM would need as a file are not unpacked where there is no room for it", async () => {
  await using host = await reachable()
  await using stack = await testStack()
  const vmmBinaries = { vmms: new Map([["firecracker" as const, { path: host.binary }]]) }
  const worker = await stack.startCaptureWorker(vmmBinaries)
  await stack.startCompressionWorker()
  const source = await launch(stack, "source")
  const [framed, raw] = [await stack.snapshot(source, zstd), await stack.snapshot(source)]
  await Promise.all([framed, raw].map(({ id }) => stack.settled(id)))
  await worker[Symbol.asyncDispose]()
  await stack.startCaptureWorker({ ...vmmBinaries, spaceFloorBytes: roomOfNoDisk })
  const fork = (id: string, name: string, body = {}) =>
    stack.ask("POST", `/snapshots/${id}/fork`, { body: { name, ...body } })

  const refused = await fork(framed.id, "framed")
  const stopped = await fork(framed.id, "stopped", { target_state: "Stopped" })
  const linked = await fork(raw.id, "raw")
  await stack.api.request("POST", `/instances/${source.id}/stop`)
  const inPlace = await stack.ask("POST", `/instances/${source.id}/snapshots/${framed.id}/restore`, {
    body: {},
  })

  for (const { body } of [refused, inPlace])
    expect(body).toMatchObject({
      code: "insufficient_resources",
      message: expect.stringMatching(/\d{8,} are needed there, for firecracker to load the snapshot/),
    })
  expect([stopped.status, linked.status]).toEqual([201, 201])
  expect((await stack.api.request<InstanceResource>("GET", `/instances/${source.id}`)).state).toBe("Stopped")
})
