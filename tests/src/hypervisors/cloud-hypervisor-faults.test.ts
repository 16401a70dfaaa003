import { readdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { controlVm } from "@stillframe/hypervisors/cloud-hypervisor/control"
import { cloudHypervisor as vmm } from "@stillframe/hypervisors/cloud-hypervisor/vmm"
import { expect, test } from "vitest"
import { fail, fakeVmm } from "./cloud-hypervisor-fake.ts"
import { firstGap, ground, never, serial, ticks, untilTicks } from "./test-vm.ts"
import { forkVm, guest, saveVm, startVm, type VmmVm } from "./vmm-vm.ts"

/** The guest prints on, and no tick is missing since its start. */
async function expectRunning(vm: VmmVm): Promise<void> {
  expect(await vm.control.state()).toBe("running")
  await untilTicks(vm.dir, 3, ticks(serial(vm.dir)).length)
  expect(firstGap(serial(vm.dir))).toBeUndefined()
}

test("a disk that is full fails the save, leaves no file and the VM can go on", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeVmm(place))
  const target = await place.folder("save")
  await fail(vm.dir, { "vm.snapshot": { does: "full", file: "memory-ranges" } })
  await vm.control.pause()

  const attempt = vm.control.save(target, { signal: never })

  await expect(attempt).rejects.toMatchObject({
    code: "insufficient_storage",
    message: expect.stringContaining("No space left on device"),
  })
  expect(await readdir(target)).toEqual([])
  expect(await vm.control.state()).toBe("paused")
  await vm.control.resume()
  await expectRunning(vm)
})

test("a pause that fails when the processors already stand still is led back", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeVmm(place))
  await fail(vm.dir, { "vm.pause": { does: "half_pause", times: 1 } })

  await expect(vm.control.pause()).rejects.toMatchObject({ code: "hypervisor_failed" })

  await expectRunning(vm)
})

test("a pause that fails half-way again and again is told as such", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeVmm(place))
  await fail(vm.dir, { "vm.pause": { does: "half_pause" } })

  await expect(vm.control.pause()).rejects.toMatchObject({
    code: "hypervisor_failed",
    message: expect.stringContaining("may stand still though its state says that it runs"),
  })
})

test("a resume that is refused at first is a matter of asking again", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeVmm(place))
  await fail(vm.dir, { "vm.resume": { does: "refuse", times: 2 } })
  await vm.control.pause()

  await expect(vm.control.resume()).rejects.toMatchObject({ code: "hypervisor_failed" })
  await expect(vm.control.resume()).rejects.toMatchObject({ code: "hypervisor_failed" })
  expect(await vm.control.state()).toBe("paused")
  await vm.control.resume()

  await expectRunning(vm)
})

test.each([
  { request: "vm.pause", left: [] },
  { request: "vm.snapshot", left: [] },
  { request: "vm.resume", left: ["config.json", "memory-ranges", "state.json"] },
])("a process that dies at $request is gone, without half a save", async ({ request, left }) => {
  await using place = await ground()
  const vm = await startVm(place, await fakeVmm(place))
  const target = await place.folder("save")
  await fail(vm.dir, { [request]: { does: "exit_after" } })

  const attempt = async (): Promise<void> => {
    await vm.control.pause()
    await vm.control.save(target, { signal: never })
    await vm.control.resume()
  }

  await expect(attempt()).rejects.toMatchObject({ code: "hypervisor_gone" })
  expect((await readdir(target)).sort()).toEqual(left)
  await expect(vm.control.state()).rejects.toMatchObject({ code: "hypervisor_gone" })
})

test("a connection that is cut leaves the answer to whoever asks for the state", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeVmm(place))
  await fail(vm.dir, { "vm.pause": { does: "reset" } })

  await expect(vm.control.pause()).rejects.toMatchObject({ code: "hypervisor_gone" })

  await expectRunning(vm)
})

test("an answer that never comes is a time-out", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeVmm(place))
  const hasty = controlVm(vm.dir, 200)
  await fail(vm.dir, { "vm.pause": { does: "hang" } })

  await expect(hasty.pause()).rejects.toMatchObject({ code: "timeout" })
  await expect(hasty.state()).rejects.toMatchObject({ code: "timeout" })
})

test("a save whose answer comes too late has ended when the state is told, and its files are gone then", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeVmm(place))
  const target = await place.folder("save")
  await vm.control.pause()
  await fail(vm.dir, { "vm.snapshot": { does: "slow", ms: 1_500 } })

  const attempt = controlVm(vm.dir, 1_000).save(target, { signal: never })

  await expect(attempt).rejects.toMatchObject({ code: "timeout" })
  expect(await readdir(target)).toEqual([])
  expect(await vm.control.state()).toBe("paused")
})

test("a save that may still be at it keeps its files", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeVmm(place))
  const target = await place.folder("save")
  await vm.control.pause()
  await fail(vm.dir, { "vm.snapshot": { does: "hang" } })

  const attempt = controlVm(vm.dir, 1_000).save(target, { signal: never })
  const ended = attempt.catch((error: unknown) => error)
  await expect.poll(() => readdir(vm.dir)).toContain("hanging")
  await writeFile(join(target, "state.json"), "")

  expect(await ended).toMatchObject({ code: "timeout" })
  expect(await readdir(target)).toEqual(["state.json"])
})

test("a save that was called off before it began writes nothing", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeVmm(place))
  const target = await place.folder("save")
  await vm.control.pause()

  const attempt = vm.control.save(target, { signal: AbortSignal.abort() })

  await expect(attempt).rejects.toMatchObject({ code: "cancelled" })
  expect(await readdir(target)).toEqual([])
})

test("two captors of one VM both find it paused, and each has its own save", async () => {
  await using place = await ground()
  const subjectVmm = await fakeVmm(place)
  const vm = await startVm(place, subjectVmm)
  const other = vmm.control(vm.dir, guest)

  const saves = await Promise.all([saveVm(place, vm, "one"), saveVm(place, { ...vm, control: other }, "two")])

  for (const [index, save] of saves.entries()) {
    const fork = await forkVm(place, subjectVmm, save, `fork${index}`)
    expect(firstGap(save.printed + serial(fork.dir))).toBeUndefined()
  }
})
