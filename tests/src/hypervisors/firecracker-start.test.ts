import { link, readdir, rename, rm, truncate, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { firecracker } from "@stillframe/hypervisors/firecracker/vmm"
import { openFiles, processAlive } from "@stillframe/hypervisors/process/processes"
import { expect, test } from "vitest"
import { capture, fakeFirecracker, guest, restoreVm, setFault, startVm } from "./firecracker-vm.ts"
import { ground, never, pidsIn } from "./test-vm.ts"

const mib = 1024 ** 2

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

test.each([
  ["1.15.1", "1.16.1", "bitcode error"],
  ["1.12.1", "1.14.4", "Invalid data version: 6.0.0"],
  // Both call their format 8.0.0.
  ["1.13.2", "1.14.4", "bincode decoding"],
])(
  "a snapshot of %s is refused by %s with its reason, and no process is left",
  async (made, other, reason) => {
    await using place = await ground()
    const { payload } = await capture(place, await startVm(place, await fakeFirecracker(place, made)))

    const restoring = restoreVm(place, await fakeFirecracker(place, other), payload)

    await expect(restoring).rejects.toMatchObject({
      code: "hypervisor_failed",
      said: expect.stringContaining(reason),
    })
    expect(await pidsIn(join(place.root, "fork"))).toEqual([])
  },
)

test("a process that dies in a load leaves its last words, and no process", async () => {
  await using place = await ground()
  const binary = await fakeFirecracker(place)
  const { payload } = await capture(place, await startVm(place, binary))
  const dir = await place.folder("fork")
  await setFault({ dir }, { load: "die" })

  await expect(restoreVm(place, binary, payload)).rejects.toMatchObject({
    code: "hypervisor_failed",
    said: expect.stringContaining('Put request on "/snapshot/load"'),
  })

  expect(await pidsIn(dir)).toEqual([])
})

test("a host without memory for a fork says so", async () => {
  await using place = await ground()
  const binary = await fakeFirecracker(place)
  const { payload } = await capture(place, await startVm(place, binary))
  const dir = await place.folder("fork")
  await setFault({ dir }, { load: "enomem" })

  await expect(restoreVm(place, binary, payload)).rejects.toMatchObject({ code: "insufficient_resources" })

  expect(await pidsIn(dir)).toEqual([])
})

test("a fork whose disk is not there is refused", async () => {
  await using place = await ground()
  const binary = await fakeFirecracker(place)
  const { payload } = await capture(place, await startVm(place, binary, { disk: "x" }))
  await rm(join(payload, "disk0.raw"))

  await expect(restoreVm(place, binary, payload)).rejects.toMatchObject({
    said: expect.stringContaining("disk0.raw"),
  })

  expect(await pidsIn(join(place.root, "fork"))).toEqual([])
})

test("a fork whose disk was cut short is refused, which Firecracker would not see", async () => {
  await using place = await ground()
  const binary = await fakeFirecracker(place)
  const { payload } = await capture(place, await startVm(place, binary, { disk: "x" }))
  await truncate(join(payload, "disk0.raw"), mib / 2)

  await expect(restoreVm(place, binary, payload)).rejects.toMatchObject({
    code: "hypervisor_failed",
    message: expect.stringContaining("disk0.raw has 524288 bytes where the VM's disk has 1048576"),
  })

  expect(await pidsIn(join(place.root, "fork"))).toEqual([])
})

test("a snapshot of a VM with a disk is not restored as one without", async () => {
  await using place = await ground()
  const binary = await fakeFirecracker(place)
  const { payload } = await capture(place, await startVm(place, binary, { disk: "x" }))
  const dir = await place.folder("fork")
  await rename(join(payload, "disk0.raw"), join(dir, "disk0.raw"))

  await expect(restoreVm(place, binary, payload)).rejects.toThrow("not a disk of this VM")

  expect(await pidsIn(dir)).toEqual([])
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
  // By now it hangs in the load, not in its start.
  const mapped = async (): Promise<boolean> => {
    const [pid] = await pidsIn(dir)
    return pid !== undefined && (await openFiles(Number(pid))).includes(join(saved, "memory"))
  }
  await expect.poll(mapped).toBe(true)
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
    said: expect.stringContaining("Cannot open /dev/kvm"),
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
