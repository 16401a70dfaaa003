import { link, readdir, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { cloudHypervisor as vmm } from "@stillframe/hypervisors/cloud-hypervisor/vmm"
import { endProcess, processAlive } from "@stillframe/hypervisors/process/processes"
import { expect, test } from "vitest"
import { fail, fakeVmm } from "./cloud-hypervisor-fake.ts"
import { ground, never, pidsIn } from "./test-vm.ts"
import { guest, launchOptions, restoreOptions, saveVm, startVm } from "./vmm-vm.ts"

test("a restore that leaves the guest running is ended: nobody asked for that", async () => {
  await using place = await ground()
  const { binary } = await fakeVmm(place)
  const vm = await startVm(place, { vmm, binary })
  const options = await restoreOptions(place, binary, await saveVm(place, vm), "restored")
  await fail(options.dir, { "vm.restore": { does: "ignore" } })

  await expect(vmm.restore(options)).rejects.toMatchObject({
    code: "hypervisor_failed",
    message: expect.stringContaining("should be paused and is running"),
  })

  expect(await pidsIn(options.dir)).toEqual([])
})

test.each(["refuse", "exit"])(
  "a restore that the VMM answers with %s leaves no process and no links",
  async (does) => {
    await using place = await ground()
    const { binary } = await fakeVmm(place)
    const vm = await startVm(place, { vmm, binary })
    const options = await restoreOptions(place, binary, await saveVm(place, vm), "restored")
    await fail(options.dir, { "vm.restore": { does } })

    await expect(vmm.restore(options)).rejects.toMatchObject({ code: "hypervisor_failed" })

    expect(await pidsIn(options.dir)).toEqual([])
    expect(await readdir(options.dir)).not.toContain("loading")
  },
)

test("a restore that is cancelled while it loads leaves no process", async () => {
  await using place = await ground()
  const { binary } = await fakeVmm(place)
  const vm = await startVm(place, { vmm, binary })
  const options = await restoreOptions(place, binary, await saveVm(place, vm), "restored")
  await fail(options.dir, { "vm.restore": { does: "hang" } })
  const stop = new AbortController()

  const attempt = vmm.restore({ ...options, signal: stop.signal })
  // Heard before it is looked at.
  attempt.catch(() => {})
  await expect.poll(async () => await readdir(options.dir)).toContain("hanging")
  stop.abort()

  await expect(attempt).rejects.toMatchObject({ code: "cancelled" })
  expect(await pidsIn(options.dir)).toEqual([])
})

test("a disk that a running VM writes is not given to a second one", async () => {
  await using place = await ground()
  const { binary } = await fakeVmm(place)
  const vm = await startVm(place, { vmm, binary })
  const options = await restoreOptions(place, binary, await saveVm(place, vm), "restored")
  await rm(join(options.dir, "disk0.raw"))
  await link(join(vm.dir, "disk0.raw"), join(options.dir, "disk0.raw"))

  await expect(vmm.restore(options)).rejects.toMatchObject({
    code: "hypervisor_failed",
    message: expect.stringContaining("another VM has one of its disks open"),
  })

  expect(await pidsIn(options.dir)).toEqual([])
})

test("a restore that asks for other memory than was saved is refused with what there is", async () => {
  await using place = await ground()
  const { binary } = await fakeVmm(place)
  const vm = await startVm(place, { vmm, binary })
  const options = await restoreOptions(place, binary, await saveVm(place, vm), "restored")

  const attempt = vmm.restore({ ...options, config: { ...guest, memoryMib: 128 } })

  await expect(attempt).rejects.toMatchObject({
    code: "conflict",
    message: expect.stringContaining("64 MiB of memory"),
  })
})

test("a launch that the VMM refuses leaves no process and says why", async () => {
  await using place = await ground()
  const { binary } = await fakeVmm(place)
  const options = await launchOptions(await place.folder("vm"), binary)
  await fail(options.dir, { "vm.create": { does: "refuse" } })

  await expect(vmm.launch(options)).rejects.toMatchObject({
    code: "hypervisor_failed",
    said: expect.stringContaining("The VM could not do it: A fault that was asked for"),
  })

  expect(await pidsIn(options.dir)).toEqual([])
})

test.each(["v48.0", "v53.0"])(
  "a socket that a dead %s left does not keep the next one from listening",
  async (version) => {
    await using place = await ground()
    const { binary } = await fakeVmm(place, version)
    const vm = await startVm(place, { vmm, binary })
    process.kill(vm.process.pid, "SIGKILL")
    await endProcess(vm.process, { graceMs: 0 })
    expect(await readdir(vm.dir)).toContain("api.sock")

    place.own(await vmm.launch({ ...vm, binary, identity: "stillframe-test-vm", signal: never }))

    expect(await vm.control.state()).toBe("other")
  },
)

test("a guest that hears the power button ends its process by itself", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeVmm(place))
  await fail(vm.dir, { "vm.power-button": { does: "power_off" }, "vmm.shutdown": { does: "hang" } })

  await vmm.stop(vm.dir, vm.process, { guestMs: 5_000, processMs: 5_000, signal: never })

  expect(await processAlive(vm.process)).toBe(false)
})

test("a VM whose VMM hears nothing is ended all the same", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeVmm(place))
  await fail(vm.dir, { "vm.info": { does: "hang" } })

  await vmm.stop(vm.dir, vm.process, { guestMs: 5_000, processMs: 5_000, signal: never })

  expect(await processAlive(vm.process)).toBe(false)
})

test("the errors of versions before v48 are lines of text, and mean the same", async () => {
  await using place = await ground()
  const { binary } = await fakeVmm(place, "v46.0")
  const vm = await startVm(place, { vmm, binary })

  await vm.control.resume()
  await vm.control.pause()
  await vm.control.pause()
  const target = await place.folder("save")
  await vm.control.resume()
  await expect(vm.control.save(target, { signal: never })).rejects.toMatchObject({
    message: expect.stringContaining("refused vm.snapshot"),
    said: expect.stringContaining("The VM could not be snapshotted: Cannot snapshot VM"),
  })
  await expect(vmm.probe(binary, never)).rejects.toMatchObject({
    code: "hypervisor_unavailable",
    message: expect.stringContaining("v48 or later is needed"),
  })
})

test("a raw disk that looks like another format is refused by versions that would guess", async () => {
  await using place = await ground()
  const [old, recent] = [await fakeVmm(place, "v48.0"), await fakeVmm(place, "v53.0")]
  const options = await launchOptions(await place.folder("vm"), recent.binary)
  await writeFile(join(options.dir, "disk0.raw"), Buffer.from("QFI\u{fb}\0\0\0\u{3}", "latin1"))

  await expect(vmm.launch({ ...options, binary: old.binary })).rejects.toMatchObject({
    code: "not_supported",
  })

  place.own(await vmm.launch(options))
})
