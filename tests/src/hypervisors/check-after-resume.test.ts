import { readdir } from "node:fs/promises"
import { freezeRawDisks } from "@stillframe/hypervisors/disks/raw-disks"
import { captureVmm } from "@stillframe/hypervisors/file-vmm/capture"
import type { VmControl } from "@stillframe/hypervisors/file-vmm/vm-control"
import { hypervisorOf } from "@stillframe/hypervisors/hypervisor-of"
import { describe, expect, test } from "vitest"
import { captureHosted, failSaves, forkHosted, hosted, hostedTools, launchHosted } from "./hosted-vm.ts"
import { firstGap, ground, never, serial, ticks, untilTicks } from "./test-vm.ts"

/** Tells what is asked of a VM, in order. */
function telling(control: VmControl, asked: string[]): VmControl {
  const told = (name: string): VmControl => {
    asked.push(name)
    return control
  }
  return {
    state: () => told("state").state(),
    pause: () => told("pause").pause(),
    resume: () => told("resume").resume(),
    save: (dir, options) => told("save").save(dir, options),
    assertWhole: (dir) => told("assertWhole").assertWhole(dir),
  }
}

describe.each(hosted)("what %s saved", (name) => {
  test.each([
    { keepPaused: false, order: ["state", "pause", "save", "resume", "state", "assertWhole"] },
    { keepPaused: true, order: ["state", "pause", "save", "assertWhole"] },
  ])(
    "is looked at once the guest runs again, or before it ends: $keepPaused",
    async ({ keepPaused, order }) => {
      await using place = await ground()
      const { dir, control } = await launchHosted(place, await hostedTools(name, place.root))
      const asked: string[] = []
      const told = telling(control, asked)
      const payload = await place.folder("payload")

      await captureVmm({
        control: told,
        freeze: await freezeRawDisks([], { dir, payload: place.root, signal: never }),
        dir: payload,
        keep: async () => await told.assertWhole(payload),
        memoryBytes: 1024 ** 2,
        beforePause: () => {},
        keepPaused,
        pauseExpectedMs: 30_000,
        pauseLimitMs: 30_000,
        signal: never,
      })

      expect(asked).toEqual(order)
    },
  )

  test("is loaded by no other version than the host's worker has found", async () => {
    await using place = await ground()
    const tools = await hostedTools(name, place.root)
    const vm = await launchHosted(place, tools)
    const payload = await place.folder("payload")
    const captured = await captureHosted(vm, payload)
    const stale = { ...tools, loadsOnly: "1.0.0" }
    const source = { ...vm, hypervisor: await hypervisorOf(stale), tools: stale }

    await expect(forkHosted(place, source, { payload, captured })).rejects.toMatchObject({
      code: "not_supported",
      message: expect.stringMatching(
        `binary is ${captured.hypervisorVersion} now, and was 1\\.0\\.0.*restart the worker`,
      ),
    })
  })

  test.each([
    { how: "cut_state", keepPaused: false },
    { how: "cut_memory", keepPaused: false },
    { how: "cut_memory", keepPaused: true },
  ] as const)(
    "is not taken when it was cut short ($how, kept paused: $keepPaused): the VM runs and nothing is left",
    async ({ how, keepPaused }) => {
      await using place = await ground()
      const vm = await launchHosted(place, await hostedTools(name, place.root))
      const payload = await place.folder("payload")
      await failSaves(vm, name, how)

      await expect(captureHosted(vm, payload, { keepPaused })).rejects.toMatchObject({
        code: "hypervisor_failed",
        message: expect.stringMatching(/state|memory/),
      })

      expect(await readdir(payload)).toEqual([])
      expect(await vm.control.state()).toBe("running")
      await untilTicks(vm.dir, 3, ticks(serial(vm.dir)).length)
      expect(firstGap(serial(vm.dir))).toBeUndefined()
    },
  )
})
