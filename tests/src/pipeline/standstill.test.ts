import { copyFile, mkdtemp, rm, writeFile } from "node:fs/promises"
import { constants, tmpdir } from "node:os"
import { join } from "node:path"
import type { InstanceResource } from "@stillframe/domain/instance"
import { runProgram } from "@stillframe/hypervisors/process/run-program"
import { withMonitor } from "@stillframe/hypervisors/qemu/monitor/qmp"
import type { VmStatus } from "@stillframe/hypervisors/qemu/monitor/resume"
import { expect, test } from "vitest"
import type { Reply } from "../api/test-api.ts"
import { smallDisk, whyNoSmallDisk } from "../hypervisors/subjects/small-disk.ts"
import { never } from "../hypervisors/test-vm.ts"
import { act, processOf } from "./instance-acts.ts"
import { serial, testStack, untilTrue, type TestStack } from "./test-stack.ts"

const mib = 1024 ** 2
const diskWriter = join(import.meta.dirname, "../../guests/disk-writer.elf")

const diskMib = 48

/** A stack whose files all lie on a small file system. */
async function stackOnSmallDisk(): Promise<TestStack> {
  await using opened = new AsyncDisposableStack()
  const folder = await mkdtemp(join(tmpdir(), "stillframe-small-"))
  opened.defer(() => rm(folder, { recursive: true }))
  opened.use(await smallDisk(folder, diskMib * 1024))
  const stack = opened.use(await testStack({ folder }))
  const resources = opened.move()
  return { ...stack, [Symbol.asyncDispose]: () => resources.disposeAsync() }
}

/** A VM whose guest does nothing but write to its disk. */
async function launchWriter(stack: TestStack): Promise<InstanceResource> {
  const kernel = join(stack.imagesDir, "disk-writer.elf")
  const path = join(stack.imagesDir, "disk.qcow2")
  await copyFile(diskWriter, kernel)
  await runProgram("qemu-img", ["create", "-q", "-f", "qcow2", path, "64M"], { signal: never })
  const launch = { kernel, memory_mib: 64, disks: [{ path, format: "qcow2" }] }
  return stack.api.request("POST", "/instances", { name: "writer", launch })
}

/** Takes all room that is left on the file system of `dir`, until it is disposed of. */
async function ballast(dir: string): Promise<AsyncDisposable> {
  const path = join(dir, "ballast")
  const { code } = await writeFile(path, Buffer.alloc(diskMib * mib)).then(
    () => ({ code: "none" }),
    (error: NodeJS.ErrnoException) => error,
  )
  expect(code).toBe("ENOSPC")
  return { [Symbol.asyncDispose]: () => rm(path, { force: true }) }
}

/** Waits until the API shows an instance in a state. */
async function shows(
  stack: TestStack,
  { id }: { id: string },
  state: InstanceResource["state"],
): Promise<InstanceResource> {
  return stack.until(async () => {
    const instance = await stack.api.request<InstanceResource>("GET", `/instances/${id}`)
    return instance.state === state ? instance : undefined
  })
}

/** Waits until the feed tells of as many states, and gives them all. */
async function statesTold(stack: TestStack, { id }: { id: string }, count: number): Promise<string[]> {
  return stack.until(async () => {
    const states = await statesSoFar(stack, id)
    return states.length >= count ? states : undefined
  })
}

async function statesSoFar(stack: TestStack, id: string): Promise<string[]> {
  const events = await stack.api.request<{ type: string; data: InstanceResource }[]>(
    "GET",
    `/events?after=0&instance_id=${id}`,
  )
  return events.filter(({ type }) => type === "instance.state_changed").map(({ data }) => data.state)
}

async function tell(
  stack: TestStack,
  instance: InstanceResource,
  command: string,
  args?: object,
): Promise<unknown> {
  return withMonitor(stack.generationDir(instance), "command.sock", (monitor) =>
    monitor.execute(command, args),
  )
}

/** Has each write of the VM's disk fail from now on. */
async function failWrites(stack: TestStack, instance: InstanceResource, errno: number): Promise<void> {
  const rule = { event: "none", iotype: "write", errno, once: false }
  await tell(stack, instance, "blockdev-add", {
    driver: "blkdebug",
    "node-name": `failing-${errno}`,
    image: "disk0-0",
    "inject-error": [rule],
  })
  await setDrive(stack, instance, `failing-${errno}`)
}

async function setDrive(stack: TestStack, instance: InstanceResource, node: string): Promise<void> {
  await tell(stack, instance, "qom-set", {
    path: "/machine/peripheral/disk0",
    property: "drive",
    value: node,
  })
}

async function printsMore(dir: string): Promise<void> {
  const { length } = await serial(dir)
  await untilTrue(dir, async () => (await serial(dir)).length > length + 2)
}

test.skipIf(whyNoSmallDisk !== undefined)(
  "a VM that its host's full disk stops is Paused with the reason, and goes on by itself when there is room",
  async () => {
    await using stack = await stackOnSmallDisk()
    const worker = await stack.startCaptureWorker()
    const writer = await launchWriter(stack)
    const dir = stack.generationDir(writer)
    {
      await using _full = await ballast(stack.dataDir)
      const stopped = await shows(stack, writer, "Paused")
      expect(stopped.state_error).toMatch(/no room for what the guest writes to disk0.*free space/)
      const refused = {
        status: 409,
        body: { message: expect.stringContaining("got Paused: the host has no room") },
      }
      const ask = { body: { kind: "Standby" } }
      expect(await stack.ask("POST", `/instances/${writer.id}/snapshots`, ask)).toMatchObject(refused)
      expect(await stack.ask("POST", `/instances/${writer.id}/standby`)).toMatchObject(refused)
    }
    expect(await shows(stack, writer, "Running")).not.toHaveProperty("state_error")
    await printsMore(dir)
    expect(await statesTold(stack, writer, 3)).toEqual(["Running", "Paused", "Running"])

    await worker[Symbol.asyncDispose]()
    {
      await using _full = await ballast(stack.dataDir)
      await expect
        .poll(async () => ((await tell(stack, writer, "query-status")) as VmStatus).status)
        .toBe("io-error")
      await stack.startCaptureWorker()
      await shows(stack, writer, "Paused")
    }
    await shows(stack, writer, "Running")
    await printsMore(dir)
    expect(await serial(dir)).not.toContain("e")

    await using _full = await ballast(stack.dataDir)
    await shows(stack, writer, "Paused")
    expect(await act(stack, writer, "stop")).toMatchObject({ state: "Stopped" })
  },
)

test("a VM that another program pauses is Paused until that lets it go on, and no capture shows as one", async () => {
  await using stack = await testStack()
  const worker = await stack.startCaptureWorker()
  const vm = await stack.launch("vm")
  const snapshot = await stack.snapshot(vm)
  expect(await stack.settled(snapshot.id)).toMatchObject({ status: "ready" })

  await tell(stack, vm, "stop")
  expect(await shows(stack, vm, "Paused")).toMatchObject({
    state_error: expect.stringContaining("paused by another program"),
  })
  // The next worker leaves it as it is, too.
  await worker[Symbol.asyncDispose]()
  const next = await stack.startCaptureWorker()
  expect(await tell(stack, vm, "query-status")).toMatchObject({ status: "paused" })
  await tell(stack, vm, "cont")
  await shows(stack, vm, "Running")
  expect(await statesTold(stack, vm, 3)).toEqual(["Running", "Paused", "Running"])

  await tell(stack, vm, "stop")
  await shows(stack, vm, "Paused")
  await tell(stack, vm, "quit")
  expect(await shows(stack, vm, "Stopped")).toMatchObject({ exit_message: expect.any(String) })
  await next[Symbol.asyncDispose]()
})

test("a VM whose writes a quota or a failing disk refuses is Paused, and goes on by itself without having noticed", async () => {
  await using stack = await testStack()
  await stack.startCaptureWorker()
  const writer = await launchWriter(stack)
  const dir = stack.generationDir(writer)

  for (const errno of [constants.errno.EDQUOT, constants.errno.EIO]) {
    await printsMore(dir)
    await failWrites(stack, writer, errno)
    const stopped = await shows(stack, writer, "Paused")
    expect(stopped.state_error).toMatch(/does not take what the guest writes to disk0.*quota/)

    await setDrive(stack, writer, "disk0-0")
    expect(await shows(stack, writer, "Running")).not.toHaveProperty("state_error")
  }
  await printsMore(dir)
  expect(await serial(dir)).not.toContain("e")
})

test("a VM whose process hangs is Unknown with the reason, is not captured, and is Running once it answers", async () => {
  await using stack = await testStack()
  const worker = await stack.startCaptureWorker()
  const vm = await stack.launch("vm")
  const { pid } = (await processOf(stack, vm)) ?? { pid: 0 }
  const silent = { state_error: expect.stringContaining("hypervisor does not answer") }
  const capture = (): Promise<Reply> =>
    stack.ask("POST", `/instances/${vm.id}/snapshots`, {
      body: { kind: "Standby" },
      headers: { prefer: "wait=55" },
    })

  process.kill(pid, "SIGSTOP")
  expect(await capture()).toMatchObject({
    status: 409,
    body: { code: "conflict", message: expect.stringMatching(/stopped or hangs.*continue QEMU/) },
  })
  expect(await shows(stack, vm, "Unknown")).toMatchObject(silent)
  expect(await capture()).toMatchObject({
    status: 409,
    body: { message: expect.stringContaining("got Unknown: the VM's hypervisor does not answer") },
  })
  process.kill(pid, "SIGCONT")
  expect(await shows(stack, vm, "Running")).not.toHaveProperty("state_error")
  expect(await statesTold(stack, vm, 3)).toEqual(["Running", "Unknown", "Running"])

  // A worker that starts while it hangs cannot hold its monitor yet, and tells of it all the same.
  await worker[Symbol.asyncDispose]()
  process.kill(pid, "SIGSTOP")
  await stack.startCaptureWorker()
  expect(await shows(stack, vm, "Unknown")).toMatchObject(silent)
  process.kill(pid, "SIGCONT")
  await shows(stack, vm, "Running")
})
