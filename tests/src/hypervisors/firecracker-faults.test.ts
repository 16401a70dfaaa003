import { readdir } from "node:fs/promises"
import { firecracker } from "@stillframe/hypervisors/firecracker/vmm"
import { expect, test } from "vitest"
import {
  clearFault,
  expectDescribed,
  fakeFirecracker,
  guest,
  impatient,
  restoreVm,
  setFault,
  startVm,
  untilReceived,
} from "./firecracker-vm.ts"
import { firstGap, ground, never, serial, ticks, untilTicks } from "./test-vm.ts"

test.each([
  ["refuse", "hypervisor_failed", "save did not work"],
  ["enospc_state", "insufficient_storage", "No space left on device"],
  ["enospc_memory", "insufficient_storage", "No space left on device"],
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

  const pausing = impatient(vm, 1_500).pause()
  await untilReceived(vm, "PATCH /vm", "GET /")
  await clearFault(vm)

  await expect(pausing).resolves.toBeUndefined()
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

test("a save that goes on after its time is waited for, so that no file comes after the removal", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeFirecracker(place))
  const payload = await place.folder("payload")
  await vm.control.pause()
  await setFault(vm, { save: "hang_memory" })

  const [saving] = await Promise.allSettled([
    impatient(vm, 1_500).save(payload, { signal: never }),
    untilReceived(vm, "PUT /snapshot/create", "GET /").then(async () => await clearFault(vm)),
  ])

  expect(saving).toMatchObject({ status: "rejected", reason: { code: "timeout" } })
  expect(await vm.control.state()).toBe("paused")
  expect(await readdir(payload)).toEqual([])
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

test("a guest that does not go on, whatever the answer said, is no success", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeFirecracker(place))
  await vm.control.pause()
  await setFault(vm, { resume: "ignore" })

  await expect(firecracker.begin(vm.dir, guest)).rejects.toMatchObject({
    code: "hypervisor_failed",
    message: expect.stringContaining("the VM is paused after it was started"),
  })
})

test("two captors of one VM both find it paused, and each has a save of its own", async () => {
  await using place = await ground()
  const binary = await fakeFirecracker(place)
  const vm = await startVm(place, binary)
  const payloads = [await place.folder("one"), await place.folder("two")]

  await Promise.all(
    payloads.map(async (payload) => {
      await vm.control.pause()
      await vm.control.save(payload, { signal: never })
    }),
  )

  const printed = serial(vm.dir)
  for (const [index, payload] of payloads.entries()) {
    const fork = await restoreVm(place, binary, payload, { name: `fork${index}` })
    await firecracker.begin(fork.dir, guest)
    await untilTicks(fork.dir, 3)
    expect(firstGap(printed + serial(fork.dir))).toBeUndefined()
  }
})
