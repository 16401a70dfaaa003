import { controlVm } from "@stillframe/hypervisors/cloud-hypervisor/control"
import { answerDeadlineMs } from "@stillframe/hypervisors/cloud-hypervisor/deadline"
import { freezeRawDisks } from "@stillframe/hypervisors/disks/raw-disks"
import { captureVmm } from "@stillframe/hypervisors/file-vmm/capture"
import { deadlineMs } from "@stillframe/hypervisors/firecracker/api"
import { expect, test } from "vitest"
import { fail, fakeVmm } from "./cloud-hypervisor-fake.ts"
import { ground, never } from "./test-vm.ts"
import { startVm } from "./vmm-vm.ts"

test.each([
  ["cloud-hypervisor", answerDeadlineMs],
  ["firecracker", deadlineMs],
])("an answer of %s may take longer the more memory is to be written", (_, deadline) => {
  const slowestMibPerMs = 16 / 1_000

  expect(deadline({ memoryMib: 0 })).toBeGreaterThanOrEqual(30_000)
  expect(deadline({ memoryMib: 65_536 }) - deadline({ memoryMib: 0 })).toBeGreaterThanOrEqual(
    65_536 / slowestMibPerMs,
  )
})

test.each(["pause", "resume"] as const)(
  "a %s whose answer comes too late is done all the same",
  async (what) => {
    await using place = await ground()
    const vm = await startVm(place, await fakeVmm(place))
    if (what === "resume") await vm.control.pause()
    await fail(vm.dir, { [`vm.${what}`]: { does: "slow", ms: 1_500, times: 1 } })

    await controlVm(vm.dir, 1_000)[what]()

    expect(await vm.control.state()).toBe(what === "pause" ? "paused" : "running")
  },
)

test("a VM that does not even tell its state is not captured: it hangs", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeVmm(place))
  await fail(vm.dir, { "vm.info": { does: "slow", ms: 1_500, times: 1 } })

  const captured = captureVmm({
    control: controlVm(vm.dir, 500),
    freeze: await freezeRawDisks([], { dir: vm.dir, payload: place.root, signal: never }),
    dir: place.root,
    keep: async () => {},
    memoryBytes: 1024 ** 2,
    beforePause: () => {},
    pauseExpectedMs: 30_000,
    pauseLimitMs: 30_000,
    signal: never,
  })

  await expect(captured).rejects.toMatchObject({
    code: "hypervisor_silent",
    message: expect.stringContaining("it is stopped or hangs"),
  })
  expect(await vm.control.state()).toBe("running")
})
