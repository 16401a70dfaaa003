import { spawn } from "node:child_process"
import { once } from "node:events"
import { rename, writeFile } from "node:fs/promises"
import { createServer } from "node:net"
import { join } from "node:path"
import { endProcess, identifyProcess } from "@stillframe/hypervisors/process/processes"
import { watchPid } from "@stillframe/hypervisors/process/watch-pid"
import { withMonitor } from "@stillframe/hypervisors/qemu/monitor/qmp"
import { expect, test } from "vitest"
import { attach, startStranger, asOwner } from "./stranger.ts"
import { ground, heartbeat, never } from "./test-vm.ts"

const isRoot = process.getuid?.() === 0
const nobody = { uid: 65_534, gid: 65_534 }

test("a VM that someone else started is found by its socket alone, and read as a launch form", async () => {
  await using place = await ground()
  const stranger = await startStranger(place, { args: ["-smp", "2"] })

  const vm = await attach(place, stranger)

  expect(vm).toMatchObject({
    controlSocket: stranger.controlSocket,
    process: stranger.process,
    user: { uid: process.getuid?.() },
    memoryMib: 64,
    vcpus: 2,
    diskBytesMax: 0,
    standstill: undefined,
    launch: { restorable: true, config: { memoryMib: 64, vcpus: 2, kernel: heartbeat, disks: [] } },
  })
  // The command line says "q35", which will be another machine in the next QEMU.
  expect(vm.launch).toMatchObject({ config: { machine: expect.stringMatching(/^pc-q35-\d+\.\d+$/) } })
  expect(vm.hypervisorVersion).toMatch(/^\d+\.\d+\.\d+$/)
})

test("its disks are read with their real paths, and a name with a link in it is the same socket", async () => {
  await using place = await ground()
  await writeFile(join(place.root, "a.raw"), Buffer.alloc(1024 * 1024))
  const stranger = await startStranger(place, {
    args: ["-drive", "file=../a.raw,format=raw,if=virtio,cache=none"],
  })

  const vm = await attach(place, stranger, {
    controlSocket: join(place.root, "stranger/../stranger/qmp.sock"),
  })

  expect(vm.controlSocket).toBe(stranger.controlSocket)
  expect(vm.launch).toMatchObject({
    config: { disks: [{ path: join(place.root, "a.raw"), format: "raw", readonly: false }] },
  })
})

test("an option that the launch form does not know: attached, and said to be not restorable for it", async () => {
  await using place = await ground()
  const stranger = await startStranger(place, { args: ["-device", "virtio-rng-pci"] })

  expect((await attach(place, stranger)).launch).toEqual({
    restorable: false,
    option: "-device virtio-rng-pci",
  })
})

test("a device that was plugged in after the start counts like an option", async () => {
  await using place = await ground()
  const stranger = await startStranger(place, { machine: "pc" })
  expect((await attach(place, stranger)).launch).toMatchObject({ restorable: true })

  await asOwner(stranger, async (monitor) => {
    await monitor.execute("device_add", { driver: "virtio-rng-pci", id: "late" })
  })

  expect((await attach(place, stranger)).launch).toEqual({
    restorable: false,
    option: "the device late (virtio-rng-pci), which was plugged in later",
  })
})

test("a disk outside HOST_PATHS is not attached to", async () => {
  await using place = await ground()
  await using elsewhere = await ground()
  await writeFile(join(elsewhere.root, "a.raw"), Buffer.alloc(1024 * 1024))
  const stranger = await startStranger(place, {
    args: ["-drive", `file=${elsewhere.root}/a.raw,format=raw,if=virtio`],
  })

  await expect(attach(place, stranger)).rejects.toMatchObject({
    code: "invalid_request",
    message: expect.stringContaining("HOST_PATHS"),
  })
})

test("a monitor that another program holds is a conflict, said within a deadline", async () => {
  await using place = await ground()
  const stranger = await startStranger(place)

  await withMonitor(stranger.dir, "qmp.sock", async () => {
    await expect(attach(place, stranger)).rejects.toMatchObject({
      code: "conflict",
      message: expect.stringContaining("libvirt, holds the VM's only monitor connection"),
    })
  })

  expect((await attach(place, stranger)).standstill).toBeUndefined()
})

test("a pid that does not listen on the socket is a conflict", async () => {
  await using place = await ground()
  const stranger = await startStranger(place)
  const other = await startStranger(place, { dir: await place.folder("other") })

  const attempt = attach(place, stranger, { pid: other.process.pid })

  await expect(attempt).rejects.toMatchObject({
    code: "conflict",
    message: expect.stringContaining("does not listen"),
  })
  expect((await attach(place, stranger, { pid: stranger.process.pid })).process).toEqual(stranger.process)
})

test("a socket's name that another VM has taken over is not mistaken for the first one's", async () => {
  await using place = await ground()
  const stranger = await startStranger(place)
  const other = await startStranger(place, { dir: await place.folder("other") })
  await rename(other.controlSocket, stranger.controlSocket)

  const attempt = attach(place, stranger)

  await expect(attempt).rejects.toMatchObject({
    code: "conflict",
    message: expect.stringContaining("answered by another process"),
  })
})

test("one of our own VMs is not attached to", async () => {
  await using place = await ground()
  const stranger = await startStranger(place, { dir: await place.folder("data/instances/x/1") })

  await expect(attach(place, stranger)).rejects.toMatchObject({
    code: "invalid_request",
    message: expect.stringContaining("DATA_DIR"),
  })
})

test("a program that is no configured QEMU is refused before a word is said to it", async () => {
  await using place = await ground()
  let connections = 0
  const server = createServer(() => connections++)
  const controlSocket = join(place.root, "fake.sock")
  server.listen(controlSocket)
  await once(server, "listening")
  try {
    const attempt = attach(place, { controlSocket, binary: "/bin/true", dir: "", process: await self() })

    await expect(attempt).rejects.toMatchObject({
      code: "invalid_request",
      message: expect.stringContaining("not a configured QEMU"),
    })
    expect(connections).toBe(0)
  } finally {
    server.close()
  }
})

test.each(["missing.sock", "plain"])("%s is no socket", async (name) => {
  await using place = await ground()
  await writeFile(join(place.root, "plain"), "")
  const fake = { controlSocket: join(place.root, name), binary: "/bin/true", dir: "", process: await self() }

  await expect(attach(place, fake)).rejects.toMatchObject({ code: "invalid_request" })
})

test.skipIf(!isRoot)("another user's VM is refused unless that user is ours to act for", async () => {
  await using place = await ground()
  const stranger = await startStranger(place, { runAs: nobody })

  await expect(attach(place, stranger)).rejects.toMatchObject({
    code: "invalid_request",
    message: expect.stringContaining("belongs to user 65534"),
  })
  expect(await attach(place, stranger, { users: { first: nobody.uid, last: nobody.uid } })).toMatchObject({
    user: nobody,
  })
})

test("a process is watched to its end, and one that is gone already ends at once", async () => {
  const child = spawn("sleep", ["60"])
  const identity = await identifyProcess(child.pid ?? 0)
  if (identity === undefined) throw new Error("no process")
  let ended = false
  const watching = watchPid(identity, never, 5).then(() => (ended = true))

  expect(ended).toBe(false)
  await endProcess(identity, { graceMs: 1000 })
  await watching

  expect(ended).toBe(true)
  await watchPid(identity, never)
})

test("a watch that is not wanted any more rejects with the reason", async () => {
  const stop = new AbortController()
  const watching = watchPid(await self(), stop.signal)
  stop.abort()

  await expect(watching).rejects.toMatchObject({ name: "AbortError" })
})

async function self(): Promise<NonNullable<Awaited<ReturnType<typeof identifyProcess>>>> {
  const identity = await identifyProcess(process.pid)
  if (identity === undefined) throw new Error("/proc does not show this process")
  return identity
}
