import { readdir, readFile, truncate, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { endProcess, processAlive } from "@stillframe/hypervisors/processes"
import { describe, expect, test } from "vitest"
import { firstGap, ground, never, pidsIn, serial, ticks, untilTicks } from "./test-vm.ts"
import {
  forkVm,
  guest,
  launchOptions,
  restoreOptions,
  saveVm,
  startVm,
  type TestVmm,
  type VmmVm,
} from "./vmm-vm.ts"

/** What every hypervisor behind `Vmm` must do, on the real program as on a fake. */
export function vmmContract(name: string, subject: TestVmm): void {
  describe(`on ${name}`, () => {
    test("a binary says what it is, and another program is none", async () => {
      const { vmm, binary } = subject

      const capabilities = await vmm.probe(binary, never)

      expect(capabilities).toMatchObject({
        version: expect.stringMatching(/^\d+\.\d+/),
        kinds: ["Standby", "Stopped"],
      })
      await expect(vmm.probe("/bin/false", never)).rejects.toMatchObject({ code: "hypervisor_unavailable" })
      await expect(vmm.probe("/nowhere", never)).rejects.toMatchObject({ code: "hypervisor_unavailable" })
    })

    test("a launched guest runs when it is let, not before", async () => {
      await using place = await ground()
      const { vmm, binary } = subject
      const options = await launchOptions(await place.folder("vm"), binary)

      place.own(await vmm.launch(options))

      const control = vmm.control(options.dir, guest)
      expect(await control.state()).toBe("other")
      await vmm.begin(options.dir, guest)
      expect(await control.state()).toBe("running")
      await untilTicks(options.dir, 3)
    })

    test("a paused guest stands still, and goes on where it stood", async () => {
      await using place = await ground()
      const vm = await startVm(place, subject)

      await vm.control.pause()

      expect(await vm.control.state()).toBe("paused")
      const printed = serial(vm.dir)
      // Two more answers take longer than a tick.
      await vm.control.state()
      await vm.control.state()
      expect(serial(vm.dir)).toBe(printed)
      await vm.control.resume()
      await untilTicks(vm.dir, 3, ticks(printed).length)
      expect(await vm.control.state()).toBe("running")
      expect(firstGap(serial(vm.dir))).toBeUndefined()
    })

    test("to pause a paused VM and to resume a running one is done already", async () => {
      await using place = await ground()
      const { control } = await startVm(place, subject)

      await control.resume()
      expect(await control.state()).toBe("running")
      await control.pause()
      await control.pause()
      expect(await control.state()).toBe("paused")
    })

    test("more callers than it has connections for are all answered", async () => {
      await using place = await ground()
      const { control } = await startVm(place, subject)
      await control.pause()

      const states = await Promise.all(Array.from({ length: 30 }, async () => await control.state()))

      expect(new Set(states)).toEqual(new Set(["paused"]))
    })

    test("a save leaves whole files and the VM paused, and the VM goes on", async () => {
      await using place = await ground()
      const vm = await startVm(place, subject)
      const target = await place.folder("save")
      await vm.control.pause()
      const before = ticks(serial(vm.dir)).length

      const files = await vm.control.save(target, { signal: never })

      expect(await vm.control.state()).toBe("paused")
      expect(files.map(({ name }) => name).sort()).toEqual((await readdir(target)).sort())
      expect(files.filter(({ role }) => role === "memory")).toHaveLength(1)
      await vm.control.resume()
      await untilTicks(vm.dir, 3, before)
      expect(firstGap(serial(vm.dir))).toBeUndefined()
    })

    test("a running VM is not saved, and nothing of the try is left", async () => {
      await using place = await ground()
      const vm = await startVm(place, subject)
      const target = await place.folder("save")

      await expect(vm.control.save(target, { signal: never })).rejects.toMatchObject({
        code: "hypervisor_failed",
      })

      expect(await readdir(target)).toEqual([])
      expect(await vm.control.state()).toBe("running")
    })

    test("a directory that holds something is left as it is", async () => {
      await using place = await ground()
      const vm = await startVm(place, subject)
      const save = await saveVm(place, vm)
      const before = await contents(save.dir)

      await expect(vm.control.save(save.dir, { signal: never })).rejects.toMatchObject({
        code: "hypervisor_failed",
      })

      expect(await contents(save.dir)).toEqual(before)
    })

    test("a restored guest stands still, then goes on by one with the same memory", async () => {
      await using place = await ground()
      const { vmm, binary } = subject
      const vm = await startVm(place, { vmm, binary })
      const save = await saveVm(place, vm)
      await endProcess(vm.process, { graceMs: 0 })
      const options = await restoreOptions(place, binary, save, "restored")

      place.own(await vmm.restore(options))

      const control = vmm.control(options.dir, guest)
      expect(await control.state()).toBe("paused")
      expect(serial(options.dir)).toBe("")
      await vmm.begin(options.dir, guest)
      await untilTicks(options.dir, 3)
      expect(firstGap(save.printed + serial(options.dir))).toBeUndefined()
    })

    test("many VMs from one save run at once, the source gone, and what was saved stays as it is", async () => {
      await using place = await ground()
      const vm = await startVm(place, subject)
      const save = await saveVm(place, vm)
      const before = await contents(save.dir)
      await endProcess(vm.process, { graceMs: 0 })

      const names = ["a", "b", "c"]
      const forks = await Promise.all(names.map(async (name) => await forkVm(place, subject, save, name)))

      for (const fork of forks) {
        expect(await fork.control.state()).toBe("running")
        expect(firstGap(save.printed + serial(fork.dir))).toBeUndefined()
      }
      expect(await contents(save.dir)).toEqual(before)
    })

    test("a restored VM can be saved and restored again", async () => {
      await using place = await ground()
      const first = await saveVm(place, await startVm(place, subject), "first")
      const fork = await forkVm(place, subject, first, "fork")
      const second = await saveVm(place, fork, "second")

      const last = await forkVm(place, subject, second, "last")

      expect(firstGap(first.printed + second.printed + serial(last.dir))).toBeUndefined()
    })

    test("memory that is cut short is refused and leaves no process", async () => {
      await using place = await ground()
      const { vmm, binary } = subject
      const vm = await startVm(place, { vmm, binary })
      await vm.control.pause()
      const target = await place.folder("save")
      const files = await vm.control.save(target, { signal: never })
      const memory = files.find(({ role }) => role === "memory")?.name ?? ""
      await truncate(join(target, memory), 1024 ** 2)
      const options = await restoreOptions(place, binary, { dir: target, printed: "" }, "restored")

      await expect(vmm.restore(options)).rejects.toMatchObject({ code: "hypervisor_failed" })

      expect(await pidsIn(options.dir)).toEqual([])
    })

    test("a state that can't be read is refused and leaves no process", async () => {
      await using place = await ground()
      const { vmm, binary } = subject
      const vm = await startVm(place, { vmm, binary })
      await vm.control.pause()
      const target = await place.folder("save")
      const files = await vm.control.save(target, { signal: never })
      for (const { name, role } of files) if (role === "state") await writeFile(join(target, name), "{")
      const options = await restoreOptions(place, binary, { dir: target, printed: "" }, "restored")

      await expect(vmm.restore(options)).rejects.toMatchObject({ code: "hypervisor_failed" })

      expect(await pidsIn(options.dir)).toEqual([])
    })

    test("a launch that is cancelled leaves no process", async () => {
      await using place = await ground()
      const { vmm, binary } = subject
      const options = await launchOptions(await place.folder("vm"), binary)

      const attempt = vmm.launch({ ...options, signal: AbortSignal.abort() })

      await expect(attempt).rejects.toMatchObject({ code: "cancelled" })
      expect(await pidsIn(options.dir)).toEqual([])
    })

    test("a VM whose process was killed is gone", async () => {
      await using place = await ground()
      const vm = await startVm(place, subject)
      await endProcess(vm.process, { graceMs: 0 })

      for (const attempt of everyOrder(vm, await place.folder("save")))
        await expect(attempt()).rejects.toMatchObject({ code: "hypervisor_gone" })
    })

    test.each(["running", "paused"] as const)("a %s VM is stopped, its guest deaf or not", async (state) => {
      await using place = await ground()
      const { vmm, binary } = subject
      const vm = await startVm(place, { vmm, binary })
      if (state === "paused") await vm.control.pause()

      await vmm.stop(vm.dir, vm.process, { guestMs: 100, processMs: 5_000, signal: never })

      expect(await processAlive(vm.process)).toBe(false)
      await vmm.stop(vm.dir, vm.process, { guestMs: 100, processMs: 5_000, signal: never })
    })
  })
}

function everyOrder({ control }: VmmVm, target: string): (() => Promise<unknown>)[] {
  return [
    async () => await control.state(),
    async () => await control.pause(),
    async () => await control.resume(),
    async () => await control.save(target, { signal: never }),
  ]
}

async function contents(dir: string): Promise<Map<string, string>> {
  const names = (await readdir(dir)).sort()
  return new Map(
    await Promise.all(
      names.map(async (name) => [name, (await readFile(join(dir, name))).toString("base64")] as const),
    ),
  )
}
