import { processAlive } from "@stillframe/hypervisors/process/processes"
import { expect, test } from "vitest"
import { captureVm, expectNothingLeft, openBench, startVm, stopVm } from "../subjects/subject-vm.ts"
import type { Subject } from "../subjects/subject.ts"
import { ground } from "../test-vm.ts"

export function ending(subject: Subject): void {
  test("the end of a VM that is killed is seen, and from then on it is gone", async () => {
    await using place = await ground()
    const bench = await openBench(place, subject)
    const { hypervisor } = bench
    const vm = await startVm(bench)
    const watch = await hypervisor.watch(vm.dir)

    process.kill(vm.process.pid, "SIGKILL")

    expect(await watch.ended).toBe("gone")
    const gone = { code: "hypervisor_gone" }
    await expect(captureVm(bench, vm, "payload")).rejects.toMatchObject(gone)
    await expect(hypervisor.settle(vm.dir, { wasRunning: true })).rejects.toMatchObject(gone)
    await expectNothingLeft(bench, "payload")
    expect(await hypervisor.find(vm.identity)).toBeUndefined()
  })

  test("a running VM is stopped, and once more", async () => {
    await using place = await ground()
    const bench = await openBench(place, subject)
    const vm = await startVm(bench)

    await stopVm(bench, vm)
    await stopVm(bench, vm)

    expect(await processAlive(vm.process)).toBe(false)
  })

  test("a VM that another program pauses is seen to stand still, nothing of ours would resume it, and it is stopped, and once more", async () => {
    await using place = await ground()
    const bench = await openBench(place, subject)
    const vm = await startVm(bench)
    const look = async (): Promise<unknown> => {
      const watch = await bench.hypervisor.watch(vm.dir)
      return watch.look().finally(() => watch.close())
    }

    expect(await look()).toBeUndefined()
    await subject.pause(vm.dir)
    expect(await look()).toMatchObject({ status: "paused", endsWithWrites: false })

    await stopVm(bench, vm)
    await stopVm(bench, vm)

    expect(await processAlive(vm.process)).toBe(false)
  })
}
