import { readdir, readFile, stat, truncate, writeFile } from "node:fs/promises"
import { join } from "node:path"
import type { InstanceResource } from "@stillframe/domain/instance"
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest"
import { firstGap, ticks, untilTicks } from "../hypervisors/test-vm.ts"
import {
  act,
  diskHolds,
  expectGoesOn,
  processOf,
  restore,
  withDisk,
  withDisks,
  writeToDisk,
} from "./instance-acts.ts"
import { deleteInstances, serial, testStack, untilTrue, type TestStack } from "./test-stack.ts"

const zstd = { compression: { enabled: true } }

let stack: TestStack
beforeAll(async () => {
  stack = await testStack()
  await stack.startCaptureWorker()
  await stack.startCompressionWorker()
})
afterEach(() => deleteInstances(stack))
afterAll(() => stack[Symbol.asyncDispose]())

describe("stop and start", () => {
  test("a stopped instance has no process, and boots again on its disks", async () => {
    const vm = await withDisk(stack, "vm")
    const dir = stack.generationDir(vm)

    const stopped = await act(stack, vm, "stop")
    expect([stopped.state, await processOf(stack, vm)]).toEqual(["Stopped", undefined])
    await writeToDisk(stack, dir, 42)
    const started = await act(stack, vm, "start")
    await untilTicks(dir, 3)

    expect([started.state, started.id]).toEqual(["Running", vm.id])
    expect(ticks(await serial(dir))[0]?.tick).toBeLessThan(2)
    await act(stack, vm, "stop")
    expect(await diskHolds(stack, dir)).toEqual([42])
  })

  test("what a state does not allow is refused at once, and so is what contradicts work under way", async () => {
    await using own = await testStack()
    const worker = await own.startCaptureWorker()
    const vm = await own.launch("vm")

    for (const action of ["start", "restore"])
      await expect(act(own, vm, action)).rejects.toMatchObject({
        status: 409,
        body: expect.stringContaining('"invalid_state"'),
      })
    await worker[Symbol.asyncDispose]()
    const path = `/instances/${vm.id}/stop`
    await own.api.request("POST", path, undefined, { prefer: "respond-async" })
    await expect(act(own, vm, "standby")).rejects.toMatchObject({
      status: 409,
      body: expect.stringContaining("a stop of the instance is in progress"),
    })
  })
})

describe("Standby", () => {
  test("an instance in Standby has no process and goes on where it stood, again and again", async () => {
    const vm = await withDisk(stack, "vm")

    for (const generation of [1, 2, 3]) {
      const standby = await act(stack, vm, "standby")
      expect([standby.state, standby.has_snapshot]).toEqual(["Standby", true])
      expect(await processOf(stack, vm)).toBeUndefined()
      const earlier = await serial(stack.generationDir(vm, generation))
      const running = await act(stack, vm, "restore")
      expect(running.state).toBe("Running")
      await expectGoesOn(stack.generationDir(vm, generation + 1), earlier)
    }
    const home = join(stack.dataDir, "instances", vm.id)
    await untilTrue(home, async () => (await readdir(home)).toSorted().join() === "4,standby")
    await untilTrue(join(home, "standby"), async () => (await readdir(join(home, "standby"))).length === 0)
  })

  test("a snapshot of an instance in Standby is of that moment, and the instance stays there", async () => {
    const vm = await withDisk(stack, "vm")
    await act(stack, vm, "standby")
    const earlier = await serial(stack.generationDir(vm))

    const snapshot = await stack.settled((await stack.snapshot(vm, zstd)).id)
    const copy = await stack.api.request<InstanceResource>("POST", `/snapshots/${snapshot.id}/fork`, {
      name: "copy",
    })

    expect(snapshot).toMatchObject({ status: "ready", compression_state: "compressed", pause_ms: 0 })
    await expectGoesOn(stack.generationDir(copy), earlier)
    expect((await stack.api.request<InstanceResource>("GET", "/instances/vm")).state).toBe("Standby")
    await act(stack, vm, "restore")
    await expectGoesOn(stack.generationDir(vm, 2), earlier)
  })

  test("stopping an instance in Standby drops its memory and keeps its disks", async () => {
    const vm = await withDisk(stack, "vm")
    await act(stack, vm, "standby")

    const stopped = await act(stack, vm, "stop")
    expect([stopped.state, stopped.has_snapshot]).toEqual(["Stopped", false])
    await act(stack, vm, "start")
    await untilTicks(stack.generationDir(vm, 2), 3)
    expect(ticks(await serial(stack.generationDir(vm, 2)))[0]?.tick).toBeLessThan(2)
  })
})

test("several disks of both formats, one of them read-only, go through every state", async () => {
  const vm = await withDisks(stack, "vm")
  const readOnly = join(stack.imagesDir, "vm.raw")

  const standby = await stack.settled((await stack.snapshot(vm, zstd)).id)
  await act(stack, vm, "standby")
  await act(stack, vm, "restore")
  await act(stack, vm, "stop")
  const stopped = await stack.settled((await stack.snapshot(vm, { kind: "Stopped" })).id)
  await act(stack, vm, "start")
  await untilTicks(stack.generationDir(vm, 2), 3)
  await act(stack, vm, "stop")
  await restore(stack, vm, standby)
  await untilTicks(stack.generationDir(vm, 3), 3)
  await act(stack, vm, "stop")
  await restore(stack, vm, stopped, { target_state: "Running" })
  await untilTicks(stack.generationDir(vm, 4), 3)

  expect(new Set(await readFile(readOnly))).toEqual(new Set([7]))
  await writeFile(readOnly, Buffer.alloc(1024 * 1024, 8))
  await act(stack, vm, "stop")
  await act(stack, vm, "start")
  await untilTicks(stack.generationDir(vm, 4), 3)
})

describe("snapshots of kind Stopped", () => {
  test("it holds the disks as they were, whatever is written afterwards", async () => {
    const vm = await withDisk(stack, "vm")
    await act(stack, vm, "stop")
    await writeToDisk(stack, stack.generationDir(vm), 1)

    const snapshot = await stack.settled((await stack.snapshot(vm, { kind: "Stopped" })).id)
    await act(stack, vm, "start")
    await act(stack, vm, "stop")
    await writeToDisk(stack, stack.generationDir(vm), 2)
    expect(await diskHolds(stack, stack.generationDir(vm))).toEqual([2])
    const restored = await restore(stack, vm, snapshot)

    expect(snapshot).toMatchObject({ kind: "Stopped", status: "ready", compression_state: "none" })
    expect(snapshot.size_bytes).toBeGreaterThan(0)
    expect([restored.state, restored.id, restored.name]).toEqual(["Stopped", vm.id, "vm"])
    expect(await diskHolds(stack, stack.generationDir(vm, 2))).toEqual([1])
  })

  test("a fork of one is Stopped unless it is to run, and never in Standby", async () => {
    const vm = await withDisk(stack, "vm")
    await act(stack, vm, "stop")
    const { id } = await stack.settled((await stack.snapshot(vm, { kind: "Stopped" })).id)
    const fork = (body: object): Promise<InstanceResource> =>
      stack.api.request("POST", `/snapshots/${id}/fork`, body)

    const stopped = await fork({ name: "stopped" })
    const running = await fork({ name: "running", target_state: "Running" })

    expect([stopped.state, running.state]).toEqual(["Stopped", "Running"])
    await untilTicks(stack.generationDir(running), 3)
    expect((await act(stack, stopped, "start")).state).toBe("Running")
    await untilTicks(stack.generationDir(stopped), 3)
    await expect(fork({ name: "third", target_state: "Standby" })).rejects.toMatchObject({ status: 400 })
  })
})

describe("restore in place", () => {
  test("an instance goes on where its snapshot was taken, from each state that allows it", async () => {
    const vm = await withDisk(stack, "vm")
    await untilTicks(stack.generationDir(vm), 3)
    const snapshot = await stack.settled((await stack.snapshot(vm, zstd)).id)
    const at = ticks(await serial(stack.generationDir(vm))).length
    const fromSnapshot = async (generation: number): Promise<void> => {
      const dir = stack.generationDir(vm, generation)
      await untilTicks(dir, 4)
      const printed = await serial(dir)
      expect(firstGap(printed.slice(printed.indexOf("\n") + 1))).toBeUndefined()
      expect(ticks(printed)[1]?.tick).toBeLessThan(at + 2)
    }

    await expect(restore(stack, vm, snapshot)).rejects.toMatchObject({
      status: 409,
      body: expect.stringContaining('"invalid_state"'),
    })
    await act(stack, vm, "stop")
    expect((await restore(stack, vm, snapshot)).state).toBe("Running")
    await fromSnapshot(2)
    await act(stack, vm, "standby")
    expect((await restore(stack, vm, snapshot, { target_state: "Standby" })).state).toBe("Standby")
    expect((await act(stack, vm, "restore")).state).toBe("Running")
    await fromSnapshot(4)
    await act(stack, vm, "stop")
    expect((await restore(stack, vm, snapshot, { target_state: "Stopped" })).state).toBe("Stopped")
    expect((await act(stack, vm, "start")).state).toBe("Running")
    await untilTicks(stack.generationDir(vm, 5), 3)
    const home = join(stack.dataDir, "instances", vm.id)
    await untilTrue(home, async () => (await readdir(home)).toSorted().join() === "5,standby")
  })

  test("one that fails leaves the instance as it was, and says why", async () => {
    const vm = await withDisk(stack, "vm")
    const snapshot = await stack.settled((await stack.snapshot(vm)).id)
    const [token = ""] = await readdir(join(stack.storageDir, "snapshots", snapshot.id))
    const memory = join(stack.storageDir, "snapshots", snapshot.id, token, "memory")
    await truncate(memory, Math.floor((await stat(memory)).size / 2))
    await act(stack, vm, "standby")
    const earlier = await serial(stack.generationDir(vm))

    await expect(restore(stack, vm, snapshot)).rejects.toMatchObject({
      status: 409,
      body: expect.stringContaining("memory has the SHA-256"),
    })
    const after = await stack.api.request<InstanceResource>("GET", "/instances/vm")

    expect([after.state, after.state_error]).toEqual(["Standby", expect.stringContaining("SHA-256")])
    expect(await processOf(stack, vm)).toBeUndefined()
    expect((await readdir(join(stack.dataDir, "instances", vm.id))).toSorted()).toEqual(["1", "standby"])
    const again = await act(stack, vm, "restore")
    expect(again.state_error).toBeUndefined()
    await expectGoesOn(stack.generationDir(vm, 2), earlier)
  })
})
