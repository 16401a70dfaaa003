import { readdir, readFile } from "node:fs/promises"
import { join } from "node:path"
import type { Hypervisor, InstanceResource } from "@stillframe/domain/instance"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import { afterAll, beforeAll, expect, test } from "vitest"
import { untilTicks } from "../hypervisors/test-vm.ts"
import { act, diskHolds, withDisks, writeToDisk } from "./instance-acts.ts"
import { testStack, type TestStack } from "./test-stack.ts"
import { fakeOf, onAMac, stackWith } from "./vmm-stack.ts"

onAMac()

const others = ["cloud-hypervisor", "firecracker", "vz"] as const
const written = 2

let stack: TestStack
beforeAll(async () => {
  stack = await stackWith(...others)
})
afterAll(() => stack[Symbol.asyncDispose]())

async function stopped(on: TestStack, instance: InstanceResource): Promise<SnapshotResource> {
  await act(on, instance, "stop")
  const { id } = await on.snapshot(instance, { kind: "Stopped" })
  return on.settled(id)
}

/** A Stopped snapshot of a VM of QEMU, whose guest has written to the first of its three disks. */
async function ofQemu(
  on: TestStack,
  name: string,
): Promise<{ source: InstanceResource; snapshot: SnapshotResource }> {
  const source = await withDisks(on, name)
  await act(on, source, "stop")
  await writeToDisk(on, on.generationDir(source), written)
  const { id } = await on.snapshot(source, { kind: "Stopped" })
  return { source, snapshot: await on.settled(id) }
}

function forkOn(snapshot: SnapshotResource, name: string, target: Hypervisor, state = "Running") {
  return stack.ask("POST", `/snapshots/${snapshot.id}/fork`, {
    body: { name, target_hypervisor: target, target_state: state },
  })
}

test.each(others)(
  "a VM of qemu goes on as one of %s on what its disks held, and back again",
  async (other) => {
    const { source, snapshot } = await ofQemu(stack, `qemu-to-${other}`)

    const there = await forkOn(snapshot, `on-${other}`, other)

    expect([there.status, there.body.hypervisor, there.body.state]).toEqual([201, other, "Running"])
    const dir = stack.generationDir(there.body)
    await untilTicks(dir, 3)
    expect(new Set(await readFile(join(dir, "disk0.raw")))).toEqual(new Set([written]))
    expect(new Set(await readFile(join(dir, "disk1.raw")))).toEqual(new Set([0]))
    expect(await readdir(dir)).toContain("disk2.base")
    expect((await readdir(dir)).filter((name) => name.endsWith(".qcow2"))).toEqual([])

    const back = await forkOn(await stopped(stack, there.body), `back-from-${other}`, "qemu")

    expect([back.status, back.body.hypervisor, back.body.state]).toEqual([201, "qemu", "Running"])
    await untilTicks(stack.generationDir(back.body), 3)
    await act(stack, back.body, "stop")
    expect(await diskHolds(stack, stack.generationDir(back.body))).toEqual([written])
    // What was captured is what it was, and so is the source.
    const verified = await stack.ask("POST", `/snapshots/${snapshot.id}/verify`, {
      headers: { prefer: "wait=55" },
    })
    expect(verified.body.verified_at).toEqual(expect.any(String))
    expect((await act(stack, source, "start")).state).toBe("Running")
  },
)

test("an instance is restored in place to another hypervisor, and to its own again", async () => {
  const { source, snapshot } = await ofQemu(stack, "in-place")
  const restore = (body: object) =>
    stack.ask("POST", `/instances/${source.id}/snapshots/${snapshot.id}/restore`, { body })

  const there = await restore({ target_hypervisor: "firecracker", target_state: "Running" })

  expect([there.status, there.body.hypervisor, there.body.state]).toEqual([200, "firecracker", "Running"])
  await untilTicks(stack.generationDir(source, 2), 3)
  const ofThere = await stopped(stack, source)
  expect([ofThere.status, ofThere.source_hypervisor]).toEqual(["ready", "firecracker"])
  const back = await restore({ target_state: "Running" })
  expect([back.status, back.body.hypervisor, back.body.state]).toEqual([200, "qemu", "Running"])
  await untilTicks(stack.generationDir(source, 3), 3)
  await act(stack, source, "stop")
  expect(await diskHolds(stack, stack.generationDir(source, 3))).toEqual([written])
})

test("a snapshot that waited for such a restore is of the hypervisor that it was captured on", async () => {
  const { source, snapshot } = await ofQemu(stack, "meanwhile")
  const body = { target_hypervisor: "firecracker", target_state: "Stopped" }
  const headers = { prefer: "respond-async" }

  await stack.ask("POST", `/instances/${source.id}/snapshots/${snapshot.id}/restore`, { body, headers })
  const { id } = await stack.snapshot(source, { kind: "Stopped" })

  expect((await stack.settled(id)).source_hypervisor).toBe("firecracker")
})

test("a fork that stays Stopped is of the other hypervisor, and boots there when it is started", async () => {
  const { snapshot } = await ofQemu(stack, "for-later")

  const { status, body } = await forkOn(snapshot, "later", "cloud-hypervisor", "Stopped")

  expect([status, body.hypervisor, body.state]).toEqual([201, "cloud-hypervisor", "Stopped"])
  expect((await act(stack, body, "start")).state).toBe("Running")
  await untilTicks(stack.generationDir(body), 3)
})

test("what can't go to another hypervisor is refused with what can be done", async () => {
  const running = await stack.launch("running")
  const standby = await stack.settled((await stack.snapshot(running)).id)
  const fromDisk = await stack.api.request<InstanceResource>("POST", "/instances", {
    name: "from-disk",
    launch: { memory_mib: 16, disks: [{ path: join(stack.imagesDir, "heartbeat.elf"), format: "raw" }] },
  })
  const disk = await stopped(stack, fromDisk)

  for (const target of ["qemu", "firecracker"] as const) {
    const { status, body } = await forkOn(standby, "no", target)
    expect([status, body.code]).toEqual([400, "invalid_request"])
    expect(body.message).toContain("target_hypervisor is only allowed for stopped snapshots")
  }
  const unknown = await forkOn(disk, "no", "qemu-microvm")
  expect([unknown.status, unknown.body.code]).toEqual([400, "invalid_request"])
  expect(unknown.body.message).toMatch(
    /^unsupported target hypervisor "qemu-microvm"; host ".+" offers: .*qemu/,
  )
  const noKernel = await forkOn(disk, "no", "firecracker")
  expect([noKernel.status, noKernel.body.code]).toEqual([400, "invalid_request"])
  expect(noKernel.body.message).toContain("firecracker needs a kernel")
})

test("disks for whose other form there is no room are not converted, and nothing is left of the fork", async () => {
  await using full = await testStack()
  const worker = await full.startCaptureWorker()
  const { snapshot } = await ofQemu(full, "source")
  await worker[Symbol.asyncDispose]()
  const path = await fakeOf(full.dataDir, "firecracker")
  await full.startCaptureWorker({
    vmms: new Map([["firecracker", { path }]]),
    spaceFloorBytes: Number.MAX_SAFE_INTEGER,
  })

  const { status, body } = await full.ask("POST", `/snapshots/${snapshot.id}/fork`, {
    body: { name: "copy", target_hypervisor: "firecracker" },
  })

  expect([status, body.code]).toEqual([409, "insufficient_resources"])
  expect(body.message).toContain("the snapshot's disks in the form that firecracker reads")
  expect(await readdir(join(full.dataDir, "instances"))).toHaveLength(1)
  expect((await full.ask("GET", "/instances/copy")).status).toBe(404)
})
