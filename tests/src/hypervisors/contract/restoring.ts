import { cp, readdir, readFile, rm, truncate } from "node:fs/promises"
import { join } from "node:path"
import { endProcess } from "@stillframe/hypervisors/process/processes"
import { beforeAll, describe, expect, test } from "vitest"
import { openScene, shared } from "../subjects/scene.ts"
import {
  endVms,
  expectRuns,
  forkVm,
  printedIn,
  restoreOptions,
  restoreVm,
  saveVm,
  type Save,
} from "../subjects/subject-vm.ts"
import type { Subject } from "../subjects/subject.ts"
import { firstGap, pidsIn, serial, untilTicks } from "../test-vm.ts"

export function restoring(subject: Subject): void {
  describe("a restore", () => {
    const scene = shared(async () => await openScene(subject))
    let save: Save
    beforeAll(async () => void (save = await saveVm(scene().bench, scene().vm)))

    test("leaves a guest that stands still until it is let, then goes on by one beside its source", async () => {
      const { bench, vm } = scene()

      const fork = await restoreVm(bench, save, "fork")

      expect(await subject.isRunning(fork.dir)).toBe(false)
      expect(await printedIn(fork.dir)).toBe("")
      await bench.hypervisor.begin(fork.dir)
      await untilTicks(fork.dir, 3)
      expect(firstGap(save.printed + serial(fork.dir))).toBeUndefined()
      await expectRuns(vm)
      endVms(fork)
    })

    test("of many at once, when the source's process and files are gone, leaves the save as it is", async () => {
      const { bench, vm } = scene()
      const before = await contents(save.dir)
      await endProcess(vm.process, { graceMs: 0 })
      await rm(vm.dir, { recursive: true })

      const names = ["a", "b", "c"]
      const forks = await Promise.all(names.map(async (name) => await forkVm(bench, save, name)))

      expect(await contents(save.dir)).toEqual(before)
      expect(new Set(forks.map(({ process }) => process.pid)).size).toBe(forks.length)
      endVms(...forks)
    })

    test("of what was cut short is refused, and leaves no process", async () => {
      const { bench } = scene()
      const dir = await bench.place.folder("cut")
      await cp(save.dir, dir, { recursive: true })
      for (const { name } of save.captured.files) await truncate(join(dir, name), 100)
      const options = await restoreOptions(bench, { ...save, dir }, "refused")

      await expect(bench.hypervisor.restore(options)).rejects.toMatchObject({
        code: expect.stringMatching(/^(hypervisor_failed|corrupted)$/),
      })

      expect(await pidsIn(options.dir)).toEqual([])
    })

    test("leaves a VM that outlives its snapshot, is captured like any other, and restored again", async () => {
      const { bench } = scene()
      const fork = await forkVm(bench, save, "outliving")
      await rm(save.dir, { recursive: true })

      const second = await saveVm(bench, fork, "second")

      await expectRuns(fork)
      const again = await forkVm(bench, second, "again")
      expect(firstGap(save.printed + second.printed + serial(again.dir))).toBeUndefined()
      endVms(fork, again)
    })
  })
}

async function contents(dir: string): Promise<Map<string, string>> {
  const names = (await readdir(dir)).sort()
  return new Map(
    await Promise.all(
      names.map(async (name) => [name, (await readFile(join(dir, name))).toString("base64")] as const),
    ),
  )
}
