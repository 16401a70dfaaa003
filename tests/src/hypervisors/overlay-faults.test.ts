import { access, readdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { readDisksAtRest, writeDisks, type Disk } from "@stillframe/hypervisors/disks/disks"
import { addOverlays } from "@stillframe/hypervisors/qemu/layers/layers"
import { expect, test } from "vitest"
import { smallDisk, whyNoSmallDisk } from "./subjects/small-disk.ts"
import { capture, ground, never, qemu, serial, startHeartbeat, ticks, untilTicks } from "./test-vm.ts"

test("an overlay that is still being made is none to whoever finds the VM at rest", async () => {
  await using place = await ground()
  const dir = await place.folder("vm")
  const qemuImg = join(place.root, "qemu-img")
  await writeFile(qemuImg, `#!/bin/sh\nls > ../meanwhile\nexec ${qemu.qemuImg} "$@"\n`, { mode: 0o755 })
  const layers: Disk["layers"] = [{ file: "disk0.base", format: "raw" }]
  const disk: Disk = { readonly: false, virtualSize: 1024 ** 2, layers, sources: [] }
  // What a captor that was killed there left.
  await writeFile(join(dir, "disk0.0.qcow2.half"), "")

  const [made] = await addOverlays([disk], { dir, qemuImg, signal: never })

  expect(await readFile(join(place.root, "meanwhile"), "utf8")).toBe("disk0.0.qcow2.half\n")
  expect(await readdir(dir)).toEqual(["disk0.0.qcow2"])
  await writeDisks(dir, [disk])
  expect(await readDisksAtRest(dir)).toEqual([made])
})

test.skipIf(whyNoSmallDisk !== undefined)(
  "a disk without room for the next overlay refuses a capture of QEMU before the pause, and the VM runs on",
  async () => {
    await using place = await ground()
    const dir = await place.folder("vm")
    await using _small = await smallDisk(dir, 1_024)
    await writeFile(join(place.root, "disk.raw"), Buffer.alloc(1024 ** 2))
    const disks = [{ path: join(place.root, "disk.raw"), format: "raw", readonly: false }] as const
    const vm = await startHeartbeat(place, { dir, disks: [...disks] })
    await writeFile(join(dir, "ballast"), Buffer.alloc(1024 ** 2)).catch(() => {})
    const before = await readdir(dir)
    let paused = false

    const full = capture(place, vm, "memory", { onPaused: () => (paused = true) })

    await expect(full).rejects.toMatchObject({
      code: "insufficient_storage",
      message: expect.stringContaining("found no space"),
    })
    expect(paused).toBe(false)
    expect((await readdir(dir)).sort()).toEqual(before.sort())
    await expect(access(join(place.root, "memory"))).rejects.toMatchObject({ code: "ENOENT" })
    await writeFile(join(dir, "ballast"), "")
    // What the guest prints meanwhile may be lost with the rest.
    await untilTicks(dir, 3, ticks(serial(dir)).length)
  },
)
