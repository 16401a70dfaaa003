import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { chmod, link, readdir, rm, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { bringIn } from "@stillframe/hypervisors/bring-in"
import { savePlace } from "@stillframe/hypervisors/firecracker/save-place"
import { firecracker } from "@stillframe/hypervisors/firecracker/vmm"
import { processAlive } from "@stillframe/hypervisors/processes"
import { canRunAs } from "@stillframe/hypervisors/run-as"
import { expect, test } from "vitest"
import {
  capture,
  clearFault,
  expectDescribed,
  fakeFirecracker,
  guest,
  impatient,
  restoreVm,
  setFault,
  startVm,
} from "./firecracker-vm.ts"
import { firstGap, ground, never, pidsIn, serial, ticks, untilTicks } from "./test-vm.ts"

const nobody = { uid: 65_534, gid: 65_534 }
const isRoot = process.getuid?.() === 0
const mib = 1024 ** 2

test.each([
  ["refuse", "hypervisor_failed", "save did not work"],
  ["enospc_state", "insufficient_storage", "No space left on device"],
  ["enospc_memory", "insufficient_storage", "No space left on device"],
  ["cut_state", "hypervisor_failed", "checksum"],
  ["cut_memory", "hypervisor_failed", "16 MiB"],
])("a save that fails (%s) leaves the VM paused and no file, and the next one works", async (...fault) => {
  const [save, code, words] = fault
  await using place = await ground()
  const vm = await startVm(place, await fakeFirecracker(place))
  const payload = await place.folder("payload")
  await setFault(vm, { save })
  await vm.control.pause()

  await expect(vm.control.save(payload, { signal: never })).rejects.toMatchObject({
    code,
    message: expect.stringContaining(words),
  })

  expect(await readdir(payload)).toEqual([])
  expect(await vm.control.state()).toBe("paused")
  await clearFault(vm)
  await vm.control.save(payload, { signal: never })
  await vm.control.resume()
  await untilTicks(vm.dir, 3, ticks(serial(vm.dir)).length)
  expect(firstGap(serial(vm.dir))).toBeUndefined()
  await expectDescribed(place)
})

test("a process that is killed in a save is gone, and leaves no file", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeFirecracker(place))
  const payload = await place.folder("payload")
  await setFault(vm, { save: "die" })
  await vm.control.pause()

  const saving = vm.control.save(payload, { signal: never })

  await expect(saving).rejects.toMatchObject({ code: "hypervisor_gone" })
  expect(await readdir(payload)).toEqual([])
  await expect(vm.control.state()).rejects.toMatchObject({ code: "hypervisor_gone" })
})

test.each(["pause", "resume"] as const)("a process that is killed in a %s is gone", async (operation) => {
  await using place = await ground()
  const vm = await startVm(place, await fakeFirecracker(place))
  await setFault(vm, { [operation]: "die" })

  await expect(vm.control[operation]()).rejects.toMatchObject({ code: "hypervisor_gone" })
})

test("a pause whose answer never comes is unknown until the VM is asked", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeFirecracker(place))
  await setFault(vm, { pause: "hang" })

  await expect(impatient(vm).pause()).rejects.toMatchObject({ code: "timeout" })

  const state = vm.control.state()
  await clearFault(vm)
  expect(await state).toBe("paused")
})

test("a pause that was done late is done", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeFirecracker(place))
  await setFault(vm, { pause: "hang" })
  const pausing = impatient(vm).pause()

  // Its own question comes over a second connection, once the answer is late.
  await expect.poll(() => openConnections(vm.process.pid)).toBeGreaterThan(1)
  await clearFault(vm)

  await pausing
})

test("a save whose answer never comes leaves no file", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeFirecracker(place))
  const payload = await place.folder("payload")
  await vm.control.pause()
  await setFault(vm, { save: "hang" })

  await expect(impatient(vm).save(payload, { signal: never })).rejects.toMatchObject({ code: "timeout" })

  expect(await readdir(payload)).toEqual([])
  await clearFault(vm)
  expect(await vm.control.state()).toBe("paused")
})

test("a save that is called off ends first, and leaves no file", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeFirecracker(place))
  const payload = await place.folder("payload")
  await setFault(vm, { save: "slow" })
  await vm.control.pause()
  const called = new AbortController()

  const saving = vm.control.save(payload, { signal: called.signal, onProgress: () => called.abort() })

  await expect(saving).rejects.toMatchObject({ code: "cancelled" })
  expect(await readdir(payload)).toEqual([])
  expect(await vm.control.state()).toBe("paused")
})

test("a resume that is refused is said, and works when it is tried again", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeFirecracker(place))
  await vm.control.pause()
  await setFault(vm, { resume: "refuse" })

  await expect(vm.control.resume()).rejects.toMatchObject({ code: "hypervisor_failed" })
  await expect(firecracker.begin(vm.dir, guest)).rejects.toMatchObject({ code: "hypervisor_failed" })

  await clearFault(vm)
  await vm.control.resume()
  expect(await vm.control.state()).toBe("running")
})

test("a VM whose socket is gone is gone for us, and ends all the same", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeFirecracker(place))
  await rm(join(vm.dir, "api.sock"))

  for (const asked of [vm.control.state(), vm.control.pause(), vm.control.resume()])
    await expect(asked).rejects.toMatchObject({ code: "hypervisor_gone" })

  await firecracker.stop(vm.dir, vm.process, { guestMs: 60_000, processMs: 2_000, signal: never })
  expect(await processAlive(vm.process)).toBe(false)
})

test("a guest that obeys Ctrl, Alt and Delete ends by itself; a process that ignores all is killed", async () => {
  await using place = await ground()
  const binary = await fakeFirecracker(place)
  const obedient = await startVm(place, binary, { name: "obedient" })
  const stuck = await startVm(place, binary, { name: "stuck" })
  await setFault(obedient, { guest: "obeys" })
  process.kill(stuck.process.pid, "SIGSTOP")

  const limits = { guestMs: 60_000, processMs: 100, signal: never }
  await Promise.all([obedient, stuck].map(async (vm) => await firecracker.stop(vm.dir, vm.process, limits)))

  expect(await processAlive(obedient.process)).toBe(false)
  expect(await processAlive(stuck.process)).toBe(false)
})

test("a snapshot of another version is refused with Firecracker's reason, and no process is left", async () => {
  await using place = await ground()
  const { payload } = await capture(place, await startVm(place, await fakeFirecracker(place, "1.15.1")))

  const restoring = restoreVm(place, await fakeFirecracker(place, "1.16.1"), payload)

  await expect(restoring).rejects.toMatchObject({
    code: "hypervisor_failed",
    message: expect.stringContaining("Invalid data version: 9.0.0"),
  })
  expect(await pidsIn(join(place.root, "fork"))).toEqual([])
})

test("a process that dies in a load leaves its last words, and no process", async () => {
  await using place = await ground()
  const binary = await fakeFirecracker(place)
  const { payload } = await capture(place, await startVm(place, binary))
  const dir = await place.folder("fork")
  await setFault({ dir }, { load: "die" })

  await expect(restoreVm(place, binary, payload)).rejects.toMatchObject({
    code: "hypervisor_failed",
    message: expect.stringContaining("Running Firecracker v1.16.1"),
  })

  expect(await pidsIn(dir)).toEqual([])
})

test("a fork whose disk is not there is refused", async () => {
  await using place = await ground()
  const binary = await fakeFirecracker(place)
  const { payload } = await capture(place, await startVm(place, binary, { disk: "x" }))
  await rm(join(payload, "disk0.raw"))

  await expect(restoreVm(place, binary, payload)).rejects.toThrow("disk0.raw")

  expect(await pidsIn(join(place.root, "fork"))).toEqual([])
})

test("a restore that is called off leaves no process", async () => {
  await using place = await ground()
  const binary = await fakeFirecracker(place)
  const { payload } = await capture(place, await startVm(place, binary))
  const dir = await place.folder("fork")
  await setFault({ dir }, { load: "hang" })
  const saved = await place.folder("fork/saved")
  for (const file of ["vmstate", "memory"]) await link(join(payload, file), join(saved, file))
  const called = new AbortController()
  const launch = { dir, binary, config: guest, disks: [], identity: "stillframe-test-fork", saved }

  const restoring = firecracker.restore({ ...launch, signal: called.signal })
  await expect.poll(async () => (await pidsIn(dir)).length).toBe(1)
  called.abort()

  await expect(restoring).rejects.toMatchObject({ code: "cancelled" })
  expect(await pidsIn(dir)).toEqual([])
})

test("a process that can't start leaves its last words", async () => {
  await using place = await ground()
  const dir = await place.folder("vm")
  const launch = { dir, config: guest, disks: [], identity: "stillframe-test-vm", signal: never }
  const refusing = join(place.root, "refusing")
  await writeFile(refusing, "#!/bin/sh\necho Cannot open /dev/kvm >&2\nexit 1\n", { mode: 0o755 })

  await expect(firecracker.launch({ ...launch, binary: refusing })).rejects.toMatchObject({
    code: "hypervisor_failed",
    message: expect.stringContaining("Cannot open /dev/kvm"),
  })
  await expect(firecracker.launch({ ...launch, binary: join(place.root, "none") })).rejects.toMatchObject({
    code: "hypervisor_unavailable",
  })
})

test("what Firecracker has no word for is refused before there is a process", async () => {
  await using place = await ground()
  const dir = await place.folder("vm")
  const binary = await fakeFirecracker(place)
  const launch = { dir, binary, config: guest, disks: [], identity: "stillframe-test-vm", signal: never }
  const layer = { file: "disk0.1.qcow2", format: "qcow2" as const }
  const disk = { readonly: false, virtualSize: mib, layers: [layer], sources: [] }

  for (const change of [
    { disks: [disk] },
    { config: { ...guest, vcpus: 33 } },
    { config: { memoryMib: 16, vcpus: 1, disks: [] } },
  ])
    await expect(firecracker.launch({ ...launch, ...change })).rejects.toMatchObject({
      code: "not_supported",
    })

  expect(await readdir(dir)).toEqual([])
})

test("a launch takes the place of a process that left its socket", async () => {
  await using place = await ground()
  const binary = await fakeFirecracker(place)
  const first = await startVm(place, binary)
  process.kill(first.process.pid, "SIGKILL")
  await expect.poll(async () => await processAlive(first.process)).toBe(false)

  const second = await startVm(place, binary)

  expect(await second.control.state()).toBe("running")
})

test("a save is staged where there is room, and brought in once the guest runs again", async () => {
  await using place = await ground()
  const binary = await fakeFirecracker(place)
  const vm = await startVm(place, binary)
  const [payload, staging] = [await place.folder("payload"), await place.folder("staging")]
  await vm.control.pause()
  const printed = serial(vm.dir)

  const files = await vm.control.save(payload, { signal: never, staging })
  await vm.control.resume()
  expect(await readdir(payload)).toEqual([])
  expect(files.map(({ staged }) => staged)).toEqual([
    join(staging, "payload", "memory"),
    join(staging, "payload", "vmstate"),
  ])
  await bringIn(files, payload)

  expect(await readdir(staging)).toEqual([])
  const fork = await restoreVm(place, binary, payload)
  await firecracker.begin(fork.dir, guest)
  await untilTicks(fork.dir, 3)
  expect(firstGap(printed + serial(fork.dir))).toBeUndefined()
})

test("a staged save that fails leaves nothing in the staging directory", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeFirecracker(place))
  const [payload, staging] = [await place.folder("payload"), await place.folder("staging")]
  await setFault(vm, { save: "enospc_memory" })
  await vm.control.pause()

  await expect(vm.control.save(payload, { signal: never, staging })).rejects.toMatchObject({
    code: "insufficient_storage",
  })

  expect(await readdir(staging)).toEqual([])
})

test("a staging directory without room is passed over", async () => {
  await using place = await ground()
  const [vmDir, dir] = [await place.folder("vm"), await place.folder("payload")]

  const place1 = await savePlace({ vmDir, dir, staging: place.root, memoryMib: 16 })
  const place2 = await savePlace({ vmDir, dir, staging: place.root, memoryMib: 1024 ** 3 })

  expect([place1.staged, place2.staged]).toEqual([true, false])
})

test.skipIf(!isRoot)(
  "as root the VM runs as another user, who can read what it maps and no more",
  async (context) => {
    await using place = await ground()
    const binary = await fakeFirecracker(place)
    await chmod(place.root, 0o711)
    if (!(await canRunAs(binary, nobody, never))) context.skip()
    const vm = await startVm(place, binary, { runAs: nobody, disk: "x" })
    await chmod(place.root, 0o700)
    const payload = await place.folder("payload")
    await chmod(payload, 0o700)
    await vm.control.pause()
    const printed = serial(vm.dir)
    const files = await vm.control.save(payload, { signal: never })
    await vm.control.resume()
    await bringIn(files, payload)
    expect((await stat(join(payload, "memory"))).uid).toBe(0)
    expect((await readdir(vm.dir)).filter((name) => name.startsWith("saving"))).toEqual([])
    execFileSync("cp", [join(vm.dir, "disk0.raw"), payload])

    await chmod(place.root, 0o711)
    const fork = await restoreVm(place, binary, payload, { runAs: nobody })
    await firecracker.begin(fork.dir, guest)
    await untilTicks(fork.dir, 3)

    expect(firstGap(printed + serial(fork.dir))).toBeUndefined()
    expect(readFileSync(`/proc/${fork.process.pid}/status`, "utf8")).toMatch(/Uid:\s65534\s65534\s65534/)
    const memory = await stat(join(fork.dir, "saved", "memory"))
    expect([memory.uid, memory.mode & 0o777]).toEqual([0, 0o440])
  },
)

function openConnections(pid: number): number {
  return execFileSync("ls", ["-l", `/proc/${pid}/fd`], { encoding: "utf8" })
    .split("\n")
    .filter((line) => line.includes("socket:")).length
}
