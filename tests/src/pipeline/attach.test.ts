import { readdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import type { InstanceResource } from "@stillframe/domain/instance"
import { endProcess, processAlive } from "@stillframe/hypervisors/process/processes"
import { withMonitor } from "@stillframe/hypervisors/qemu/monitor/qmp"
import { afterAll, afterEach, beforeAll, expect, test } from "vitest"
import {
  asOwner,
  contentOf,
  expectRunning,
  overlaysIn,
  startStranger,
  writeAsGuest,
} from "../hypervisors/stranger.ts"
import { ground, serial } from "../hypervisors/test-vm.ts"
import {
  attach,
  expectGoesOnBetween,
  fork,
  get,
  homeOf,
  settingsFor,
  stackForAllGrounds,
  untilState,
} from "./attached.ts"
import { act, processOf, restore } from "./instance-acts.ts"
import { deleteInstances, testStack, type TestStack } from "./test-stack.ts"

let stack: TestStack
beforeAll(async () => {
  stack = await stackForAllGrounds()
})
afterEach(() => deleteInstances(stack))
afterAll(() => stack[Symbol.asyncDispose]())

test("a VM that someone else started: attached, captured and forked, while it runs on", async () => {
  await using place = await ground()
  const stranger = await startStranger(place, { args: ["-smp", "2"] })

  const theirs = await attach(stack, stranger)
  const before = serial(stranger.dir)
  const snapshot = await stack.settled((await stack.snapshot(theirs)).id)
  const after = serial(stranger.dir)
  const copy = await fork(stack, snapshot)

  expect(theirs).toMatchObject({ attached: true, state: "Running", vcpus: 2, size: "64 MB" })
  expect(snapshot.status).toBe("ready")
  expect(copy).not.toHaveProperty("attached")
  await expectGoesOnBetween(stack.generationDir(copy), before, after)
  await expectRunning(stranger)
  expect(await readdir(homeOf(stack, theirs))).toEqual(["1"])
})

test("its disk is copied with leave to use an overlay, and its own file stays the one it writes", async () => {
  await using place = await ground()
  const disk = join(place.root, "a.raw")
  await writeFile(disk, Buffer.alloc(1024 * 1024, 7))
  const stranger = await startStranger(place, { args: ["-drive", `file=${disk},format=raw,if=virtio`] })
  const theirs = await attach(stack, stranger, { allow_overlay: true })
  await writeAsGuest(stranger, 0x11)

  const before = serial(stranger.dir)
  const snapshot = await stack.settled((await stack.snapshot(theirs)).id)
  const after = serial(stranger.dir)
  await writeAsGuest(stranger, 0x22)
  const copy = await fork(stack, snapshot)

  expect(snapshot.status).toBe("ready")
  await expectGoesOnBetween(stack.generationDir(copy), before, after)
  const forked = await contentOf(place, join(stack.generationDir(copy), "disk0.0.qcow2"), "qcow2")
  expect(forked[0]).toBe(0x11)
  expect((await readFile(disk))[0]).toBe(0x22)
  expect(await overlaysIn(place)).toEqual([])
  expect(await readdir(homeOf(stack, theirs))).toEqual(["1"])
  await expectRunning(stranger)
})

test("a disk that it only reads is imported by the capture, so its owner may change the file afterwards", async () => {
  await using place = await ground()
  const disk = join(place.root, "read.raw")
  await writeFile(disk, Buffer.alloc(1024 * 1024, 7))
  const args = ["-drive", `file=${disk},format=raw,if=virtio,readonly=on`]
  const stranger = await startStranger(place, { args })
  const theirs = await attach(stack, stranger)

  const before = serial(stranger.dir)
  const snapshot = await stack.settled((await stack.snapshot(theirs)).id)
  const after = serial(stranger.dir)
  await writeFile(disk, Buffer.alloc(1024 * 1024, 8), { flag: "r+" })
  const copy = await fork(stack, snapshot)

  await expectGoesOnBetween(stack.generationDir(copy), before, after)
  expect(new Set(await readFile(join(stack.generationDir(copy), "disk0.base")))).toEqual(new Set([7]))
})

test("only its owner stops, starts or puts away an attached VM, and its disks alone are no snapshot", async () => {
  await using place = await ground()
  const stranger = await startStranger(place)
  const theirs = await attach(stack, stranger)
  const { id } = (await stack.settled((await stack.snapshot(theirs)).id)) as { id: string }

  for (const action of ["stop", "start", "standby"])
    await expect(act(stack, theirs, action)).rejects.toMatchObject({
      status: 501,
      body: expect.stringContaining("tools of the VM's owner"),
    })
  const inPlace = `/instances/${theirs.id}/snapshots/${id}/restore`
  await expect(stack.api.request("POST", inPlace, {})).rejects.toMatchObject({ status: 409 })
  await endProcess(stranger.process, { graceMs: 0 })
  await untilState(stack, theirs, "Stopped")
  await expect(stack.snapshot(theirs, { kind: "Stopped" })).rejects.toMatchObject({ status: 501 })
})

test("DELETE forgets an attached VM and leaves it running, and it can be attached again", async () => {
  await using place = await ground()
  const stranger = await startStranger(place)
  const theirs = await attach(stack, stranger)

  await stack.api.request("DELETE", `/instances/${theirs.id}`)

  await expectRunning(stranger)
  expect(await readdir(join(stack.dataDir, "instances"))).toEqual([])
  expect((await attach(stack, stranger)).id).not.toBe(theirs.id)
})

test("one VM is one instance: attaching it a second time is a conflict that leaves nothing", async () => {
  await using place = await ground()
  const stranger = await startStranger(place)
  const theirs = await attach(stack, stranger)

  const second = { name: "again", attach: { control_socket: stranger.controlSocket } }
  await expect(stack.api.request("POST", "/instances", second)).rejects.toMatchObject({
    status: 409,
    body: expect.stringContaining("attached already"),
  })

  expect(await readdir(join(stack.dataDir, "instances"))).toEqual([theirs.id])
  expect(await stack.api.request("GET", "/instances")).toHaveLength(1)
  await expectRunning(stranger)
})

test("its owner ends it: Stopped, with the reason; restored in place it runs as one of ours", async () => {
  await using place = await ground()
  const stranger = await startStranger(place)
  const theirs = await attach(stack, stranger)
  const before = serial(stranger.dir)
  const snapshot = await stack.settled((await stack.snapshot(theirs)).id)
  const after = serial(stranger.dir)

  await endProcess(stranger.process, { graceMs: 0 })
  const stopped = await untilState(stack, theirs, "Stopped")
  const ours = await restore(stack, theirs, snapshot)

  expect(stopped.exit_message).toContain("owner")
  expect(ours).toMatchObject({ id: theirs.id, state: "Running" })
  expect(ours).not.toHaveProperty("attached")
  expect(await processOf(stack, ours)).toBeDefined()
  await expectGoesOnBetween(stack.generationDir(ours, 2), before, after)
  expect((await act(stack, ours, "stop")).state).toBe("Stopped")
  expect((await act(stack, ours, "start")).state).toBe("Running")
})

test("a VM that ended while no worker looked is found out by the next one", async () => {
  await using place = await ground()
  const stranger = await startStranger(place)
  await using own = await testStack()
  const worker = await own.startCaptureWorker(settingsFor(place, stranger))
  const theirs = await attach(own, stranger)
  await worker[Symbol.asyncDispose]()
  await expectRunning(stranger)

  await endProcess(stranger.process, { graceMs: 0 })
  expect((await get(own, theirs)).state).toBe("Running")
  await own.startCaptureWorker(settingsFor(place, stranger))

  expect((await untilState(own, theirs, "Stopped")).exit_message).toContain("owner")
})

test("no socket, or one that another client holds: the reason, and the name is free again", async () => {
  await using place = await ground()
  const stranger = await startStranger(place)

  const missing = { controlSocket: join(place.root, "missing.sock") }
  await expect(attach(stack, missing)).rejects.toMatchObject({ status: 400 })
  await withMonitor(stranger.dir, "qmp.sock", async () => {
    await expect(attach(stack, stranger)).rejects.toMatchObject({
      status: 409,
      body: expect.stringContaining("monitor connection"),
    })
  })

  expect(await stack.api.request("GET", "/instances")).toEqual([])
  expect((await attach(stack, stranger)).state).toBe("Running")
})

test("an option that a VM of ours can't have: captured, but not forked or restored, and the option is named", async () => {
  await using place = await ground()
  const stranger = await startStranger(place, { args: ["-device", "virtio-rng-pci"] })
  const theirs = await attach(stack, stranger)

  const snapshot = await stack.settled((await stack.snapshot(theirs)).id)
  const refused = { status: 501, body: expect.stringContaining("-device virtio-rng-pci") }

  expect(snapshot.status).toBe("ready")
  const soon = { prefer: "respond-async" }
  await expect(
    stack.api.request("POST", `/snapshots/${snapshot.id}/fork`, { name: "copy" }, soon),
  ).rejects.toMatchObject(refused)
  expect(await stack.api.request<InstanceResource[]>("GET", "/instances")).toHaveLength(1)
  await endProcess(stranger.process, { graceMs: 0 })
  await untilState(stack, theirs, "Stopped")
  await expect(restore(stack, theirs, snapshot)).rejects.toMatchObject(refused)
  expect(await processAlive(stranger.process)).toBe(false)
})

test("a disk that can't be kept without an overlay: the snapshot has failed and names the setting", async () => {
  await using place = await ground()
  const disk = join(place.root, "a.raw")
  await writeFile(disk, Buffer.alloc(1024 * 1024, 7))
  const stranger = await startStranger(place, { args: ["-drive", `file=${disk},format=raw,if=virtio`] })
  const theirs = await attach(stack, stranger)

  const settled = await stack.settled((await stack.snapshot(theirs)).id)

  expect(settled).toMatchObject({
    status: "failed",
    error: { code: "not_supported", message: expect.stringContaining("attach.allow_overlay") },
  })
  await expectRunning(stranger)
})

test("a VM that its owner had paused is captured and stays paused", async () => {
  await using place = await ground()
  const stranger = await startStranger(place)
  const theirs = await attach(stack, stranger)
  await asOwner(stranger, (monitor) => monitor.execute("stop"))

  const settled = await stack.settled((await stack.snapshot(theirs)).id)

  expect(settled.status).toBe("ready")
  const status = await asOwner(stranger, (monitor) => monitor.execute("query-status"))
  expect(status).toMatchObject({ running: false })
})

test("a VM that its owner pauses is Paused, captured as it stands, and Running again when its owner lets it", async () => {
  await using place = await ground()
  const stranger = await startStranger(place)
  const tell = (command: string): Promise<unknown> => asOwner(stranger, (monitor) => monitor.execute(command))
  await using own = await testStack()
  await own.startCaptureWorker({ ...settingsFor(place, stranger), attachedLookMs: 50 })
  await tell("stop")

  const theirs = await attach(own, stranger)
  expect(theirs).toMatchObject({ state: "Paused", state_error: expect.stringContaining("paused by another") })
  await tell("cont")
  expect(await untilState(own, theirs, "Running")).not.toHaveProperty("state_error")
  await tell("stop")
  await untilState(own, theirs, "Paused")

  const settled = await own.settled((await own.snapshot(theirs)).id)

  expect(settled.status).toBe("ready")
  expect(await tell("query-status")).toMatchObject({ running: false })
  await tell("cont")
  await untilState(own, theirs, "Running")
})
