import { readdir } from "node:fs/promises"
import { uptime } from "node:os"
import { join } from "node:path"
import { readIntent, writeIntent } from "@stillframe/capture-worker/intent"
import { takeOver } from "@stillframe/capture-worker/takeover"
import type { InstanceResource } from "@stillframe/domain/instance"
import { findProcess } from "@stillframe/hypervisors/find-process"
import { readVmRecord } from "@stillframe/hypervisors/vm-record"
import { vmms } from "@stillframe/hypervisors/vmms"
import { fakeBinary } from "@stillframe/testing/fake-binary"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { deadProcess } from "./dead-process.ts"
import { forkRuns } from "./fork-runs.ts"
import { serialLines, testStack, untilTrue, type TestStack } from "./test-stack.ts"

const zstd = { compression: { enabled: true, algorithm: "zstd", level: 1 } }

type Vmm = keyof typeof versions

const versions = { "cloud-hypervisor": ["v53.0", "v48.0"], firecracker: ["1.16.1", "1.15.0"] } as const

/** A stack with a host that has a stand-in of this hypervisor. */
async function stackWith(name: Vmm): Promise<TestStack> {
  await using opened = new AsyncDisposableStack()
  const stack = opened.use(await testStack())
  const path = await fakeBinary(stack.dataDir, name, versions[name][0])
  await stack.startCaptureWorker({ vmms: new Map([[name, { path }]]) })
  await stack.startCompressionWorker()
  opened.move()
  return stack
}

async function launch(stack: TestStack, hypervisor: Vmm, name: string): Promise<InstanceResource> {
  const instance = await stack.api.request<InstanceResource>("POST", "/instances", {
    name,
    hypervisor,
    launch: { image: "heartbeat" },
  })
  const dir = stack.generationDir(instance)
  await untilTrue(dir, async () => (await serialLines(dir)) >= 3)
  return instance
}

describe.each(Object.keys(versions) as Vmm[])("a VM of %s", (hypervisor) => {
  let stack: TestStack
  beforeAll(async () => {
    stack = await stackWith(hypervisor)
  })
  afterAll(() => stack[Symbol.asyncDispose]())

  test("is launched, captured, compressed, verified and forked, and goes on all the while", async () => {
    const source = await launch(stack, hypervisor, "source")

    const { id } = await stack.snapshot(source, zstd)
    const settled = await stack.settled(id)
    const tick = await serialLines(stack.generationDir(source))
    await forkRuns(stack, id, { name: "copy-of-source", source, tick: 3 })

    expect(source.hypervisor).toBe(hypervisor)
    expect(settled).toMatchObject({
      status: "ready",
      compression_state: "compressed",
      source_hypervisor: hypervisor,
    })
    const verified = await stack.ask("POST", `/snapshots/${id}/verify`, { headers: { prefer: "wait=55" } })
    expect(verified.body.verified_at).toEqual(expect.any(String))
    expect(await serialLines(stack.generationDir(source))).toBeGreaterThanOrEqual(tick)
    expect((await stack.api.request<InstanceResource>("GET", `/instances/${source.id}`)).state).toBe(
      "Running",
    )
  })

  test("is forked from the raw memory too, after it is gone", async () => {
    const source = await launch(stack, hypervisor, "stopped")

    const { id } = await stack.snapshot(source)
    await stack.settled(id)
    await stack.api.request("POST", `/instances/${source.id}/stop`)
    await forkRuns(stack, id, { name: "copy-of-stopped", source, tick: 3 })

    const files = await readdir(await stack.payloadDir(id))
    expect(files).toContain("memory")
    expect(files.filter((name) => name.startsWith("saving"))).toEqual([])
  })

  test("goes into Standby and comes back, and back in time in place", async () => {
    const source = await launch(stack, hypervisor, "away")
    const act = (action: string) =>
      stack.api.request<InstanceResource>("POST", `/instances/${source.id}/${action}`)

    const { id } = await stack.snapshot(source)
    await stack.settled(id)
    expect((await act("standby")).state).toBe("Standby")
    expect((await act("restore")).state).toBe("Running")
    // Firecracker maps it; Cloud Hypervisor has a copy.
    const mapped = (await readdir(stack.generationDir(source, 2))).includes("saved")
    expect(mapped).toBe(hypervisor === "firecracker")
    await act("stop")
    expect(await readdir(stack.generationDir(source, 2))).not.toContain("saved")
    const restored = await stack.ask("POST", `/instances/${source.id}/snapshots/${id}/restore`, { body: {} })

    expect([restored.status, restored.body.state]).toEqual([200, "Running"])
    const dir = stack.generationDir(source, 3)
    await untilTrue(dir, async () => (await serialLines(dir)) >= 1)
  })

  test("whose captor died in the pause runs again by what lies on the host alone", async () => {
    const source = await launch(stack, hypervisor, "paused")
    const dir = stack.generationDir(source)
    const { config } = await readVmRecord(dir)
    const control = vmms.get(hypervisor)!.control(dir, config)
    await control.pause()
    await writeIntent(join(stack.dataDir, "instances", source.id), {
      clusterId: stack.clusterId,
      instanceId: source.id,
      generation: 1,
      hypervisor: { name: hypervisor, binary: "", qemuImg: "" },
      token: "t",
      snapshotId: "s",
      captor: await deadProcess(),
      wasRunning: true,
      deadlineUptime: uptime() + 60,
      limitUptime: uptime() + 60,
    })

    // The host's sweep may be first.
    await takeOver(stack.dataDir, source.id)

    await expect.poll(() => control.state()).toBe("running")
    await expect.poll(() => readIntent(join(stack.dataDir, "instances", source.id))).toBeUndefined()
  })

  test("ends when it is deleted, and nothing of it is left on the host", async () => {
    const source = await launch(stack, hypervisor, "deleted")

    expect((await stack.ask("DELETE", `/instances/${source.id}`)).status).toBe(204)

    expect(await findProcess(`stillframe-${stack.clusterId}-${source.id}`)).toBeUndefined()
    expect(await readdir(join(stack.dataDir, "instances"))).not.toContain(source.id)
  })

  test("is not loaded by another version; its disks can be had", async () => {
    await using stack = await testStack()
    const [made, other] = versions[hypervisor]
    const worker = await stack.startCaptureWorker({
      vmms: new Map([[hypervisor, { path: await fakeBinary(stack.dataDir, hypervisor, made) }]]),
    })
    const source = await launch(stack, hypervisor, "source")
    const { id } = await stack.snapshot(source)
    await stack.settled(id)
    await worker[Symbol.asyncDispose]()
    await stack.startCaptureWorker({
      vmms: new Map([[hypervisor, { path: await fakeBinary(stack.dataDir, hypervisor, other) }]]),
    })

    const refused = await stack.ask("POST", `/snapshots/${id}/fork`, { body: { name: "running" } })
    const disks = await stack.ask("POST", `/snapshots/${id}/fork`, {
      body: { name: "disks", target_state: "Stopped" },
    })

    expect([refused.status, refused.body.code]).toEqual([501, "not_supported"])
    expect(refused.body.message).toContain("bring that version back")
    expect([disks.status, disks.body.state]).toEqual([201, "Stopped"])
  })
})
