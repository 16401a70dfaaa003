import { readdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { controlVm } from "@stillframe/hypervisors/cloud-hypervisor/control"
import { expect, test } from "vitest"
import { fail, fakeVmm } from "./cloud-hypervisor-fake.ts"
import { firstGap, ground, never, serial, ticks, untilTicks } from "./test-vm.ts"
import { startVm, type VmmVm } from "./vmm-vm.ts"

/** The guest prints on, and no tick is missing since its start. */
async function expectRunning(vm: VmmVm): Promise<void> {
  expect(await vm.control.state()).toBe("running")
  await untilTicks(vm.dir, 3, ticks(serial(vm.dir)).length)
  expect(firstGap(serial(vm.dir))).toBeUndefined()
}

test("more callers than it has connections for are all answered", async () => {
  await using place = await ground()
  const { control } = await startVm(place, await fakeVmm(place))
  await control.pause()

  const states = await Promise.all(Array.from({ length: 30 }, async () => await control.state()))

  expect(new Set(states)).toEqual(new Set(["paused"]))
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
