import { readdir } from "node:fs/promises"
import { firecracker } from "@stillframe/hypervisors/firecracker/vmm"
import { expect, test } from "vitest"
import {
  clearFault,
  fakeFirecracker,
  guest,
  impatient,
  setFault,
  startVm,
  untilReceived,
} from "./firecracker-vm.ts"
import { ground, never } from "./test-vm.ts"

test("a pause that was done late is done", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeFirecracker(place))
  await setFault(vm, { pause: "hang" })

  const pausing = impatient(vm, 1_500).pause()
  await untilReceived(vm, "PATCH /vm", "GET /")
  await clearFault(vm)

  await expect(pausing).resolves.toBeUndefined()
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
