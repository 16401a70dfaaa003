import { readdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { readPauseRecord } from "@stillframe/capture-worker/pause/pause-record"
import { takeOver } from "@stillframe/capture-worker/pause/takeover"
import type { EventEnvelope } from "@stillframe/domain/events"
import type { InstanceResource } from "@stillframe/domain/instance"
import { findProcess } from "@stillframe/hypervisors/process/find-process"
import { readVmRecord } from "@stillframe/hypervisors/process/vm-record"
import { vmms } from "@stillframe/hypervisors/vmms"
import { readManifest } from "@stillframe/storage/manifest"
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest"
import { flipBit } from "./flip-bit.ts"
import { forkRuns } from "./fork-runs.ts"
import { leavePause } from "./left-pause.ts"
import { deleteInstances, serialLines, testStack, untilTrue, type TestStack } from "./test-stack.ts"
import { fakeOf, fakeVersions, launchOn, onAMac, stackWith, type Vmm } from "./vmm-stack.ts"

onAMac()

const zstd = { compression: { enabled: true, algorithm: "zstd", level: 1 } }

/** What asking for compression comes to. */
const outcomes = {
  "cloud-hypervisor": { compression_state: "compressed" },
  firecracker: { compression_state: "compressed" },
  vz: { compression_state: "none", compression_reason: expect.stringContaining("encrypts what it saves") },
}

let stack: TestStack
beforeAll(async () => {
  stack = await stackWith("cloud-hypervisor", "firecracker", "vz")
})
afterEach(() => deleteInstances(stack))
afterAll(() => stack[Symbol.asyncDispose]())

describe.each(["cloud-hypervisor", "firecracker", "vz"] as const)("a VM of %s", (hypervisor) => {
  test("is launched, captured, compressed, verified and forked, and goes on all the while", async () => {
    const source = await launchOn(stack, hypervisor, "source")

    const { id } = await stack.snapshot(source, zstd)
    const settled = await stack.settled(id)
    const tick = await serialLines(stack.generationDir(source))
    await forkRuns(stack, id, { name: "copy-of-source", source, tick: 3 })

    expect(source.hypervisor).toBe(hypervisor)
    expect(settled).toMatchObject({
      status: "ready",
      source_hypervisor: hypervisor,
      ...outcomes[hypervisor],
    })
    expect(settled).not.toHaveProperty("compression_error")
    const verified = await stack.ask("POST", `/snapshots/${id}/verify`, { headers: { prefer: "wait=55" } })
    expect(verified.body.verified_at).toEqual(expect.any(String))
    expect(await serialLines(stack.generationDir(source))).toBeGreaterThanOrEqual(tick)
    expect((await stack.api.request<InstanceResource>("GET", `/instances/${source.id}`)).state).toBe(
      "Running",
    )
  })

  test("goes into Standby and comes back, and back in time in place", async () => {
    const source = await launchOn(stack, hypervisor, "away")
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
    const source = await launchOn(stack, hypervisor, "paused")
    const dir = stack.generationDir(source)
    const { config } = await readVmRecord(dir)
    const vmm = await vmms.get(hypervisor)!()
    const control = vmm.control(dir, config)
    await control.pause()
    const home = await leavePause(stack, source, {
      hypervisor: { name: hypervisor, binary: "", qemuImg: "" },
      token: "t",
    })

    // The host's sweep may be first.
    await takeOver(stack.dataDir, source.id)

    await expect.poll(() => control.state()).toBe("running")
    await expect.poll(() => readPauseRecord(home)).toBeUndefined()
  })

  test.skipIf(hypervisor === "vz")(
    "that cannot be booted is the caller's mistake, in our words",
    async () => {
      const kernel = join(stack.imagesDir, "program.efi")
      await writeFile(kernel, "MZ, which neither of them boots")

      const launch = { kernel, cmdline: "quiet", memory_mib: 64 }
      const { status, body } = await stack.ask("POST", "/instances", {
        body: { name: "no", hypervisor, launch },
      })

      expect([status, body.code]).toEqual([400, "invalid_request"])
      expect(body.message).toContain(`${hypervisor} on this host refuses the guest; correct "launch.kernel"`)
      expect(body.message).not.toMatch(/Kernel Loader|PUT|magic|stat/)
    },
  )

  test("ends when it is deleted, and nothing of it is left on the host", async () => {
    const source = await launchOn(stack, hypervisor, "deleted")

    expect((await stack.ask("DELETE", `/instances/${source.id}`)).status).toBe(204)

    expect(await findProcess(`stillframe-${stack.clusterId}-${source.id}`)).toBeUndefined()
    expect(await readdir(join(stack.dataDir, "instances"))).not.toContain(source.id)
  })
})

test("a snapshot of vz is completed when it is captured, whatever compression was asked for, and takes none later", async () => {
  const source = await launchOn(stack, "vz", "source")

  const { id } = await stack.snapshot(source, zstd)
  const settled = await stack.settled(id)
  const asked = await stack.ask("POST", `/snapshots/${id}/compress`, { body: {} })

  expect(settled.compression).toMatchObject({ enabled: true, algorithm: "zstd" })
  expect([asked.status, asked.body.code, asked.headers.get("x-should-retry")]).toEqual([
    501,
    "not_supported",
    "false",
  ])
  expect(asked.body.message).toContain("encrypts what it saves")
  await stack.until(async () => {
    const events = await stack.api.request<EventEnvelope[]>("GET", "/events")
    const types = events.filter(({ subject }) => subject.id === id).map(({ type }) => type)
    return types.join() === "snapshot.created,snapshot.captured,snapshot.completed" || undefined
  })
})

test("a saved state of vz that is not what was captured is not loaded, and the snapshot is found to be corrupted", async () => {
  const source = await launchOn(stack, "vz", "source")
  const { id } = await stack.snapshot(source)
  await stack.settled(id)
  await flipBit(join(await stack.payloadDir(id), "machine.json"))

  const fork = await stack.ask("POST", `/snapshots/${id}/fork`, { body: { name: "copy" } })

  expect([fork.status, fork.body.code]).toEqual([409, "conflict"])
  await stack.until(async () => (await stack.settled(id)).corrupted_at)
})

test("a snapshot of an instance that vz has put away needs no VM, and is forked", async () => {
  const source = await launchOn(stack, "vz", "source")
  const standby = await stack.ask("POST", `/instances/${source.id}/standby`)

  const { id } = await stack.snapshot(source, zstd)
  const settled = await stack.settled(id)

  expect(standby.body.state).toBe("Standby")
  expect(settled).toMatchObject({ status: "ready", ...outcomes.vz })
  await forkRuns(stack, id, { name: "copy", source, tick: 3 })
  const put = await stack.ask("POST", `/snapshots/${id}/fork`, {
    body: { name: "put-away", target_state: "Standby" },
  })
  expect([put.status, put.body.state]).toEqual([201, "Standby"])
  const resumed = await stack.ask("POST", "/instances/put-away/restore")
  expect([resumed.status, resumed.body.state]).toEqual([200, "Running"])
})

describe("on a host that has other hypervisors than before", () => {
  let changed: TestStack
  /** A VM of each hypervisor as it was, and a snapshot of it. */
  const made = new Map<Vmm, { source: InstanceResource; id: string }>()
  beforeAll(async () => {
    changed = await testStack()
    const { dataDir } = changed
    const vmms = await versionsOf(dataDir, 0)
    vmms.set("vz", { path: await fakeOf(dataDir, "vz") })
    const worker = await changed.startCaptureWorker({ vmms })
    for (const hypervisor of vmms.keys()) {
      const source = await launchOn(changed, hypervisor, `source-${hypervisor}`)
      const { id } = await changed.snapshot(source)
      await changed.settled(id)
      made.set(hypervisor, { source, id })
    }
    await worker[Symbol.asyncDispose]()
    await changed.startCaptureWorker({ vmms: await versionsOf(dataDir, 1) })
  })
  afterAll(() => changed[Symbol.asyncDispose]())

  test.each(["cloud-hypervisor", "firecracker"] as const)(
    "a VM of %s is not loaded by another version than the one that ran it; its disks can be had",
    async (hypervisor) => {
      const { source, id } = made.get(hypervisor)!
      const path = `/snapshots/${id}/fork`
      // Its process is still of the version that started it.
      const later = await changed.snapshot(source)
      await changed.settled(later.id)

      const refused = await changed.ask("POST", path, { body: { name: `running-${hypervisor}` } })
      const disks = await changed.ask("POST", path, {
        body: { name: `disks-${hypervisor}`, target_state: "Stopped" },
      })

      expect([refused.status, refused.body.code]).toEqual([501, "not_supported"])
      expect(refused.body.message).toContain("bring that version back")
      expect([disks.status, disks.body.state]).toEqual([201, "Stopped"])
      const { hypervisor: before } = await readManifest(await changed.payloadDir(id))
      expect((await readManifest(await changed.payloadDir(later.id))).hypervisor).toEqual(before)
    },
  )

  test("a snapshot of vz, which it offers no more, is refused with what that needs; its VM can be deleted", async () => {
    const { source, id } = made.get("vz")!

    const fork = await changed.ask("POST", `/snapshots/${id}/fork`, { body: { name: "copy" } })
    const standby = await changed.ask("POST", `/instances/${source.id}/standby`)

    for (const { status, body } of [fork, standby]) {
      expect([status, body.code]).toEqual([501, "not_supported"])
      expect(body.message).toContain("vz needs macOS 14 or later on Apple silicon")
    }
    expect((await changed.ask("DELETE", `/instances/${source.id}`)).status).toBe(204)
    expect(await findProcess(`stillframe-${changed.clusterId}-${source.id}`)).toBeUndefined()
  })
})

/** The stand-ins of all hypervisors that have versions, in the one at `index`. */
async function versionsOf(folder: string, index: 0 | 1): Promise<Map<Vmm, { path: string }>> {
  const found = (["cloud-hypervisor", "firecracker"] as const).map(
    async (name) => [name, { path: await fakeOf(folder, name, fakeVersions[name][index]) }] as const,
  )
  return new Map(await Promise.all(found))
}
