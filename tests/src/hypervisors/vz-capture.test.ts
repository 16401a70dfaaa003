import { readdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import type { Capture } from "@stillframe/hypervisors/capture"
import type { Disk } from "@stillframe/hypervisors/disks/disks"
import { freezeRawDisks, placeRawDisks } from "@stillframe/hypervisors/disks/raw-disks"
import { captureVmm } from "@stillframe/hypervisors/file-vmm/capture"
import { expect, test } from "vitest"
import { layDisks, storeIn } from "./laid-disks.ts"
import { canReflink, reflinkingGround } from "./reflinking.ts"
import { firstGap, ground, never, qemu, serial, ticks, untilTicks, type Ground } from "./test-vm.ts"
import { guest, restoreOptions, startVz, vz, type VzVm } from "./vz-vm.ts"

const diskBytes = 4_096

test("a captured VM runs on, and a fork of it goes on from the moment of the capture", async () => {
  await using place = await ground()
  const disks = await layDisk(place, { readonly: true })
  const vm = await startVz(place, { disks })

  const captured = await capture(place, vm, disks)

  expect(captured).toMatchObject({ wasRunning: true, disks })
  expect((await readdir(join(place.root, "payload"))).toSorted()).toEqual([
    "disk0.base",
    "machine-state.vzm",
    "machine.json",
  ])
  await expectForkGoesOn(place, captured)
  await untilTicks(vm.dir, 3, ticks(captured.printed).length)
})

test.skipIf(!canReflink)("where blocks are shared, a fork's disk is the one of that moment", async () => {
  await using place = await ground()
  await using inside = await reflinkingGround(place)
  const disks = await layDisk(inside, { readonly: false })
  const vm = await startVz(inside, { disks })
  await writeFile(join(vm.dir, "disk0.raw"), Buffer.alloc(diskBytes, 0x11))

  const captured = await capture(inside, vm, disks)
  await writeFile(join(vm.dir, "disk0.raw"), Buffer.alloc(diskBytes, 0x22))

  const fork = await expectForkGoesOn(inside, captured)
  expect((await readFile(join(fork, "disk0.raw")))[0]).toBe(0x11)
})

async function layDisk(place: Ground, { readonly }: { readonly: boolean }): Promise<Disk[]> {
  const path = join(place.root, "callers.raw")
  await writeFile(path, Buffer.alloc(diskBytes, 7))
  return (await layDisks(place, [{ path, format: "raw", readonly }])).disks
}

async function capture(place: Ground, vm: VzVm, disks: Disk[]): Promise<Capture & { printed: string }> {
  const dir = await place.folder("payload")
  let printed = ""
  const captured = await captureVmm({
    control: vm.control,
    freeze: await freezeRawDisks(disks, { dir: vm.dir, payload: dir, signal: never }),
    dir,
    keep: async () => await vm.control.assertWhole(dir),
    memoryBytes: guest.memoryMib * 1024 ** 2,
    beforePause: () => {},
    onPaused: () => void (printed = serial(vm.dir)),
    pauseExpectedMs: 30_000,
    pauseLimitMs: 30_000,
    signal: never,
  })
  return { ...captured, printed }
}

async function expectForkGoesOn(
  place: Ground,
  { disks, printed }: { disks: readonly Disk[]; printed: string },
): Promise<string> {
  const payload = join(place.root, "payload")
  const options = await restoreOptions(place, payload, "fork", { disks })
  await placeRawDisks(disks, {
    payload,
    dir: options.dir,
    qemuImg: qemu.qemuImg,
    store: storeIn(place),
    signal: never,
  })
  place.own(await vz.restore(options))
  await vz.begin(options.dir, guest)
  await untilTicks(options.dir, 3)
  expect(firstGap(printed + serial(options.dir))).toBeUndefined()
  return options.dir
}
