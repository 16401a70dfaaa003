import { readFileSync } from "node:fs"
import { readdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { firecracker } from "@stillframe/hypervisors/firecracker/vmm"
import { openFiles } from "@stillframe/hypervisors/process/processes"
import { GuestRefusal } from "@stillframe/hypervisors/refusal"
import { describe, expect, test } from "vitest"
import { capture, expectDescribed, fakeFirecracker, guest, restoreVm, startVm } from "./firecracker-vm.ts"
import { firstGap, ground, never, pidsIn, serial, ticks, untilTicks, type Ground } from "./test-vm.ts"

const real = process.env["FIRECRACKER_BINARY"]
const binaries: [string, (place: Ground) => Promise<string>][] = [
  ["the stand-in", async (place) => await fakeFirecracker(place)],
  ...(real === undefined ? [] : [[real, async () => real] as [string, () => Promise<string>]]),
]
console.info(`Firecracker: ${binaries.map(([name]) => name).join(", ")}`)

describe.each(binaries)("%s", (_, binaryIn) => {
  test("says what it is and can do", async () => {
    await using place = await ground()

    const capabilities = await firecracker.probe(await binaryIn(place), never)

    expect(capabilities).toMatchObject({ version: expect.stringMatching(/^1\.\d+\.\d+/), cancel: false })
  })

  test("a launched VM has its own session, carries our name and works in its directory", async () => {
    await using place = await ground()

    const { process, dir } = await startVm(place, await binaryIn(place))

    const session = readFileSync(`/proc/${process.pid}/stat`, "utf8").split(") ")[1]?.split(" ")[3]
    expect(Number(session)).toBe(process.pid)
    expect(await pidsIn(dir)).toEqual([String(process.pid)])
    const environment = readFileSync(`/proc/${process.pid}/environ`, "utf8").split("\0")
    expect(environment).toContain("STILLFRAME_VM=stillframe-test-vm")
  })

  test("more callers than it has connections for are all answered", async () => {
    await using place = await ground()
    const { control } = await startVm(place, await binaryIn(place))
    await control.pause()

    const states = await Promise.all(Array.from({ length: 30 }, async () => await control.state()))

    expect(new Set(states)).toEqual(new Set(["paused"]))
  })

  test("a directory that holds something is left as it is", async () => {
    await using place = await ground()
    const vm = await startVm(place, await binaryIn(place))
    const { payload } = await capture(place, vm)
    const memory = readFileSync(join(payload, "memory"))
    await vm.control.pause()

    await expect(vm.control.save(payload, { signal: never })).rejects.toMatchObject({
      code: "hypervisor_failed",
    })

    expect(readFileSync(join(payload, "memory")).equals(memory)).toBe(true)
  })

  test("a VM that runs is not saved, and runs on", async () => {
    await using place = await ground()
    const { control } = await startVm(place, await binaryIn(place))
    const payload = await place.folder("payload")

    await expect(control.save(payload, { signal: never })).rejects.toMatchObject({
      code: "hypervisor_failed",
      said: expect.stringContaining("save/restore unavailable while running"),
    })

    expect(await control.state()).toBe("running")
    expect(await readdir(payload)).toEqual([])
  })

  test("a fork runs beside its source on a disk of its own", async () => {
    await using place = await ground()
    const binary = await binaryIn(place)
    const source = await startVm(place, binary, { disk: "x" })
    const { payload, printed } = await capture(place, source)

    const fork = await restoreVm(place, binary, payload)
    await firecracker.begin(fork.dir, guest)
    await untilTicks(fork.dir, 3)
    await untilTicks(source.dir, 3, ticks(serial(source.dir)).length)

    expect(firstGap(printed + serial(fork.dir))).toBeUndefined()
    expect(firstGap(serial(source.dir))).toBeUndefined()
    expect(await openFiles(fork.process.pid)).toContain(join(fork.dir, "disk0.raw"))
    expect(await openFiles(fork.process.pid)).not.toContain(join(source.dir, "disk0.raw"))
    await expectDescribed(place)
  })

  test("a save of a restored VM leaves the memory file that it maps as it was", async () => {
    await using place = await ground()
    const binary = await binaryIn(place)
    const { payload } = await capture(place, await startVm(place, binary))
    const memory = readFileSync(join(payload, "memory"))
    const fork = await restoreVm(place, binary, payload)
    await firecracker.begin(fork.dir, guest)
    await untilTicks(fork.dir, 3)

    const second = await capture(place, fork, "second")

    expect(readFileSync(join(payload, "memory")).equals(memory)).toBe(true)
    const again = await restoreVm(place, binary, second.payload, { name: "again" })
    await firecracker.begin(again.dir, guest)
    await untilTicks(again.dir, 3)
    expect(firstGap(second.printed + serial(again.dir))).toBeUndefined()
  })

  test("a snapshot whose files are not whole is refused before there is a process", async () => {
    await using place = await ground()
    const binary = await binaryIn(place)
    const { payload } = await capture(place, await startVm(place, binary))
    const state = readFileSync(join(payload, "vmstate"))
    await writeFile(join(payload, "vmstate"), state.subarray(0, -1))

    await expect(restoreVm(place, binary, payload)).rejects.toMatchObject({
      code: "hypervisor_failed",
      message: expect.stringContaining("vmstate does not end in its checksum"),
    })
    await writeFile(join(payload, "vmstate"), state)
    await writeFile(join(payload, "memory"), Buffer.alloc(1024))
    await expect(restoreVm(place, binary, payload, { name: "other" })).rejects.toMatchObject({
      code: "hypervisor_failed",
      message: expect.stringContaining("memory has 1024 bytes where the guest has 16 MiB"),
    })

    expect(await pidsIn(join(place.root, "fork"))).toEqual([])
  })

  test("a kernel that can't be booted is a refusal of the guest when that is begun", async () => {
    await using place = await ground()
    const dir = await place.folder("vm")
    await writeFile(join(dir, "kernel"), "no kernel")
    const launch = { dir, config: guest, disks: [], identity: "stillframe-test-vm", signal: never }
    place.own(await firecracker.launch({ ...launch, binary: await binaryIn(place) }))

    const begun = firecracker.begin(dir, guest)

    await expect(begun).rejects.toBeInstanceOf(GuestRefusal)
    await expect(begun).rejects.toMatchObject({ said: expect.stringContaining("kernel") })
  })
})
