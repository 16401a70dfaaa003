import { readdir } from "node:fs/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { processAlive } from "@stillframe/hypervisors/process/processes"
import { describe, expect, test } from "vitest"
import { openScene, shared } from "../subjects/scene.ts"
import {
  captureVm,
  expectNothingLeft,
  expectRuns,
  expectWhole,
  saveVm,
  stopVm,
} from "../subjects/subject-vm.ts"
import type { Subject } from "../subjects/subject.ts"
import { firstGap, serial } from "../test-vm.ts"

export function capturing(subject: Subject): void {
  describe("a capture", () => {
    const scene = shared(async () => await openScene(subject))

    test("leaves the VM running, and what was captured in the payload alone", async () => {
      const { bench, vm } = scene()
      const before = await readdir(vm.dir)

      const { captured, dir, printed } = await captureVm(bench, vm, "running")

      await expectRuns(vm)
      expect(captured).toMatchObject({ wasRunning: true, pauseMs: expect.any(Number), disks: [] })
      expect(captured.pauseMs).toBeGreaterThan(0)
      expect(captured.files.length).toBeGreaterThan(0)
      expect((await readdir(dir)).sort()).toEqual(captured.files.map(({ name }) => name).sort())
      expect(await readdir(vm.dir)).toEqual(before)
      expect(firstGap(printed)).toBeUndefined()
    })

    test("leaves a VM paused that was paused, and it goes on when it is begun", async () => {
      const { bench, vm } = scene()
      await subject.pause(vm.dir)

      const save = await saveVm(bench, vm, "paused")
      await bench.hypervisor.settle(vm.dir, { wasRunning: false })

      expect(save.captured.wasRunning).toBe(false)
      expect(await subject.isRunning(vm.dir)).toBe(false)
      await bench.hypervisor.begin(vm.dir)
      await expectRuns(vm)
      await expectWhole(bench, save)
    })

    test("whose captor died is settled: the VM runs again, once it is known to be there", async () => {
      const { bench, vm } = scene()
      await subject.pause(vm.dir)
      const printed = serial(vm.dir)
      let seen = ""

      await bench.hypervisor.settle(vm.dir, {
        wasRunning: true,
        onPresent: async () => void (seen = serial(vm.dir)),
      })

      expect(seen).toBe(printed)
      await expectRuns(vm)
      await bench.hypervisor.settle(vm.dir, { wasRunning: true })
      await expectRuns(vm)
    })

    test.each(["before", "in"] as const)("that is cancelled %s the pause is none", async (when) => {
      const { bench, vm } = scene()
      const cancel = new AbortController()
      const hook = { [when === "in" ? "onPaused" : "beforePause"]: () => cancel.abort() }

      const attempt = captureVm(bench, vm, `cancelled-${when}`, { signal: cancel.signal, ...hook })

      await expect(attempt).rejects.toMatchObject({ code: "cancelled" })
      await expectNothingLeft(bench, `cancelled-${when}`)
      await expectRuns(vm)
    })

    test("that is refused right before the pause never pauses the VM", async () => {
      const { bench, vm } = scene()
      let paused = false
      const beforePause = (): never => {
        throw new StillframeError("lease_lost", "the lease is lost")
      }

      const attempt = captureVm(bench, vm, "refused", { beforePause, onPaused: () => void (paused = true) })

      await expect(attempt).rejects.toThrow("the lease is lost")
      expect(paused).toBe(false)
      await expectNothingLeft(bench, "refused")
      await expectRuns(vm)
    })

    test("that keeps the VM paused is for one that is put away, and comes back", async () => {
      const { bench, vm } = scene()

      const save = await saveVm(bench, vm, "standby", { keepPaused: true })

      expect(await subject.isRunning(vm.dir)).toBe(false)
      await stopVm(bench, vm)
      expect(await processAlive(vm.process)).toBe(false)
      await expectWhole(bench, save)
    })
  })
}
