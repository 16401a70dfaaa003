import { readdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { expect, test } from "vitest"
import { storeIn } from "../laid-disks.ts"
import { openBench, startVm, stopVm } from "../subjects/subject-vm.ts"
import type { Subject } from "../subjects/subject.ts"
import { ground, never, untilTicks, type Ground } from "../test-vm.ts"

export function atRest(subject: Subject): void {
  test("the disks of a VM that was stopped boot it again, and another one from what was kept of them", async () => {
    await using place = await ground()
    const bench = await openBench(place, subject)
    const { hypervisor } = bench
    const vm = await startVm(bench, { disks: await callersDisks(place) })
    await stopVm(bench, vm)

    const frozen = await hypervisor.disksAtRest(vm.dir)
    const payload = await place.folder("payload")
    const linking = { config: vm.config, store: storeIn(place), signal: never }
    const kept = await hypervisor.keep(frozen, { ...linking, from: vm.dir, dir: payload })
    const disks = await hypervisor.renew(vm.dir, never)
    const again = { ...vm, disks, signal: never }
    place.own(await hypervisor.launch(again))
    await hypervisor.begin(vm.dir)
    const copy = { ...again, dir: await place.folder("copy"), identity: `${vm.identity}-copy` }
    await hypervisor.bring(kept.disks, { ...linking, from: payload, dir: copy.dir })
    const copied = await hypervisor.top(kept.disks, { dir: copy.dir, signal: never })
    place.own(await hypervisor.launch({ ...copy, disks: copied }))
    await hypervisor.begin(copy.dir)

    await untilTicks(vm.dir, 3)
    await untilTicks(copy.dir, 3)
    expect(kept.files.map(({ role }) => role).sort()).toEqual(
      expect.arrayContaining(["base", "boot", "disk"]),
    )
    expect((await readdir(payload)).sort()).toEqual(kept.files.map(({ name }) => name).sort())
    for (const name of ["written.raw", "read.raw"])
      expect(new Set(await readFile(join(place.root, name)))).toEqual(new Set([7]))
  })
}

async function callersDisks({ root }: Ground) {
  const disks = [
    { path: join(root, "written.raw"), format: "raw", readonly: false },
    { path: join(root, "read.raw"), format: "raw", readonly: true },
  ] as const
  for (const { path } of disks) await writeFile(path, Buffer.alloc(1024 ** 2, 7))
  return [...disks]
}
