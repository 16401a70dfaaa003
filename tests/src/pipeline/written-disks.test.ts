import { access, chmod, mkdtemp, open, readdir, readFile, rm, stat, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { InstanceResource } from "@stillframe/domain/instance"
import { readVmRecord } from "@stillframe/hypervisors/process/vm-record"
import { isVmUser } from "@stillframe/hypervisors/process/vm-users"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { userOf } from "../hypervisors/hosted-vm.ts"
import { canReflink, reflinkingGround } from "../hypervisors/reflinking.ts"
import { ground, untilTicks } from "../hypervisors/test-vm.ts"
import { act, restore } from "./instance-acts.ts"
import { serialLines, testStack, untilTrue, vmUids, type TestStack } from "./test-stack.ts"
import { fakeOf, launchOn, onAMac, type Vmm } from "./vmm-stack.ts"

onAMac()

const all = ["cloud-hypervisor", "firecracker", "vz"] as const
const diskBytes = 1024 ** 2
const isRoot = process.getuid?.() === 0
/** What the disk holds at which time, every byte the same. */
const [callers, captured, later, forks] = [1, 2, 3, 4]

/** The user of the VM in `dir`, who owns its files. A shim of vz runs as its worker does. */
async function userOn(hypervisor: Vmm, dir: string): Promise<{ uid: number; gid: number }> {
  const { process: vm } = await readVmRecord(dir)
  const user = userOf(vm)
  const ofRange = isRoot && hypervisor !== "vz"
  expect(ofRange ? isVmUser(vmUids, user.uid) : user.uid === process.getuid?.()).toBe(true)
  return user
}

/** A host of all three in `folder`, whose programs other users can execute. */
async function stackIn(folder: string): Promise<TestStack> {
  await using opened = new AsyncDisposableStack()
  const programs = await mkdtemp(join(tmpdir(), "stillframe-programs-"))
  await chmod(programs, 0o711)
  opened.defer(() => rm(programs, { recursive: true }))
  const stack = opened.use(await testStack({ folder, api: { snapshotCreate: "sync" } }))
  const found = all.map(async (name) => [name, { path: await fakeOf(programs, name) }] as const)
  await stack.startCaptureWorker({ vmms: new Map(await Promise.all(found)) })
  await stack.startCompressionWorker()
  const resources = opened.move()
  return { ...stack, [Symbol.asyncDispose]: () => resources.disposeAsync() }
}

async function launchWithDisk(stack: TestStack, hypervisor: Vmm, name: string): Promise<InstanceResource> {
  const path = join(stack.imagesDir, `${name}.raw`)
  await writeFile(path, Buffer.alloc(diskBytes, callers))
  return launchOn(stack, hypervisor, name, { disks: [{ path, format: "raw" }] })
}

/** As its guest would. */
async function write(dir: string, content: number): Promise<void> {
  const file = await open(join(dir, "disk0.raw"), "r+")
  await file.write(Buffer.alloc(diskBytes, content))
  await file.close()
}

async function held(dir: string): Promise<number[]> {
  return [...new Set(await readFile(join(dir, "disk0.raw")))]
}

/** Of the disk: owner, group and mode. */
async function rights(dir: string): Promise<object> {
  const { uid, gid, mode } = await stat(join(dir, "disk0.raw"))
  return { uid, gid, mode: mode & 0o777 }
}

async function isGone(path: string): Promise<boolean> {
  return access(path).then(
    () => false,
    () => true,
  )
}

async function goesOn(stack: TestStack, instance: InstanceResource, generation?: number): Promise<void> {
  const dir = stack.generationDir(instance, generation)
  const now = await serialLines(dir)
  await untilTrue(dir, async () => (await serialLines(dir)) >= now + 3)
}

describe.skipIf(!canReflink)("where files share blocks", () => {
  const mounted = new AsyncDisposableStack()
  let stack: TestStack
  beforeAll(async () => {
    const place = mounted.use(await ground())
    const { root } = mounted.use(await reflinkingGround(place))
    stack = mounted.use(await stackIn(root))
  })
  afterAll(() => mounted.disposeAsync())

  test.each(all)("a running VM of %s is captured with the disk that it writes", async (hypervisor) => {
    const source = await launchWithDisk(stack, hypervisor, `source-${hypervisor}`)
    const dir = stack.generationDir(source)
    const user = await userOn(hypervisor, dir)
    expect(await rights(dir)).toEqual({ ...user, mode: 0o600 })
    await write(dir, captured)

    const snapshot = await stack.snapshot(source)
    await write(dir, later)
    expect(await stack.settled(snapshot.id)).toMatchObject({ status: "ready" })
    const payload = await stack.payloadDir(snapshot.id)
    const fork = await stack.api.request<InstanceResource>("POST", `/snapshots/${snapshot.id}/fork`, {
      name: `fork-${hypervisor}`,
    })
    const forkDir = stack.generationDir(fork)
    await untilTicks(forkDir, 3)

    expect(await held(forkDir)).toEqual([captured])
    expect(await rights(forkDir)).toEqual({ ...(await userOn(hypervisor, forkDir)), mode: 0o600 })
    expect(await rights(payload)).toEqual({ uid: 0, gid: 0, mode: 0o444 })
    await write(forkDir, forks)
    expect([await held(payload), await held(dir)]).toEqual([[captured], [later]])
    const verified = await stack.ask("POST", `/snapshots/${snapshot.id}/verify`, {
      headers: { prefer: "wait=55" },
    })
    expect(verified.body.verified_at).toEqual(expect.any(String))

    expect((await act(stack, source, "standby")).state).toBe("Standby")
    expect((await act(stack, source, "restore")).state).toBe("Running")
    await goesOn(stack, source, 2)
    expect(await held(stack.generationDir(source, 2))).toEqual([later])
    expect(await rights(stack.generationDir(source, 2))).toEqual({ ...user, mode: 0o600 })

    await act(stack, source, "stop")
    expect((await restore(stack, source, snapshot)).state).toBe("Running")
    await goesOn(stack, source, 3)
    expect(await held(stack.generationDir(source, 3))).toEqual([captured])

    await stack.api.request("DELETE", `/snapshots/${snapshot.id}`)
    await expect.poll(() => isGone(payload)).toBe(true)
    await goesOn(stack, fork)
    expect(await held(forkDir)).toEqual([forks])
    const ofFork = await stack.snapshot(fork)
    expect(await held(await stack.payloadDir(ofFork.id))).toEqual([forks])
    const path = join(stack.imagesDir, `source-${hypervisor}.raw`)
    expect(new Set(await readFile(path))).toEqual(new Set([callers]))
  })
})

describe("where files share no blocks", () => {
  const refusingPauses = {
    "cloud-hypervisor": { "vm.pause": { does: "refuse" } },
    firecracker: { pause: "refuse" },
    vz: { "vm.pause": "refuse" },
  }
  let stack: TestStack
  beforeAll(async () => {
    stack = await stackIn("/dev/shm")
  })
  afterAll(() => stack[Symbol.asyncDispose]())

  test.each(all)(
    "a VM of %s that writes a disk is not captured while it runs, and never paused; stopped it is",
    async (hypervisor) => {
      const source = await launchWithDisk(stack, hypervisor, `source-${hypervisor}`)
      const dir = stack.generationDir(source)
      await write(dir, captured)
      // A pause that was tried would be the reason that is told.
      await writeFile(join(dir, "fault.json"), JSON.stringify(refusingPauses[hypervisor]))

      const refused = await stack.ask("POST", `/instances/${source.id}/snapshots`, {
        body: { kind: "Standby" },
      })

      expect([refused.status, refused.body.code]).toEqual([501, "not_supported"])
      expect(refused.body.message).toMatch(/shares no blocks.+or take a Stopped snapshot/)
      const standby = await stack.ask("POST", `/instances/${source.id}/standby`)
      expect([standby.status, standby.body.code]).toEqual([501, "not_supported"])
      await goesOn(stack, source)
      await act(stack, source, "stop")
      const { id } = await stack.snapshot(source, { kind: "Stopped" })
      await write(dir, later)
      const fork = await stack.api.request<InstanceResource>("POST", `/snapshots/${id}/fork`, {
        name: `fork-${hypervisor}`,
        target_state: "Running",
      })
      await untilTicks(stack.generationDir(fork), 3)
      expect(await held(stack.generationDir(fork))).toEqual([captured])
      expect(await rights(stack.generationDir(fork))).toEqual({
        ...(await userOn(hypervisor, stack.generationDir(fork))),
        mode: 0o600,
      })
      expect(await readdir(await stack.payloadDir(id))).not.toContain("memory")
    },
  )
})
