import { readdir } from "node:fs/promises"
import { join } from "node:path"
import { expect, test } from "vitest"
import { openBench, prepared, printedIn } from "../subjects/subject-vm.ts"
import type { Subject } from "../subjects/subject.ts"
import { firstGap, ground, pidsIn, serial, untilTicks } from "../test-vm.ts"

export function launching(subject: Subject): void {
  test("a launched guest runs when it is let, and its process is found by its name", async () => {
    await using place = await ground()
    const bench = await openBench(place, subject)
    const { hypervisor } = bench
    const launch = await prepared(bench)

    const process = place.own(await hypervisor.launch(launch))

    expect(subject.bootsAtLaunch === true || (await printedIn(launch.dir)) === "").toBe(true)
    await hypervisor.begin(launch.dir)
    await untilTicks(launch.dir, 3)
    expect(firstGap(serial(launch.dir))).toBeUndefined()
    expect(await hypervisor.find(launch.identity)).toEqual(process)
    expect(await hypervisor.find(`${launch.identity}x`)).toBeUndefined()
    expect(await pidsIn(launch.dir)).toEqual([String(process.pid)])
  })

  test("a disk outside HOST_PATHS is refused before anything is made", async () => {
    await using place = await ground()
    const bench = await openBench(place, subject)

    const disks = [{ path: "/etc/hostname", format: "raw", readonly: true } as const]
    const attempt = prepared(bench, { disks })

    await expect(attempt).rejects.toMatchObject({ code: "invalid_request" })
    expect(await readdir(join(place.root, "vm"))).toEqual([])
  })

  test("a launch that is cancelled leaves no process", async () => {
    await using place = await ground()
    const bench = await openBench(place, subject)
    const launch = await prepared(bench)

    const attempt = bench.hypervisor.launch({ ...launch, signal: AbortSignal.abort() })

    await expect(attempt).rejects.toMatchObject({ code: "cancelled" })
    expect(await pidsIn(launch.dir)).toEqual([])
  })
}
