import { access, readdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { expect, test } from "vitest"
import { smallDisk, whyNoSmallDisk } from "./subjects/small-disk.ts"
import { capture, ground, serial, startHeartbeat, ticks, untilTicks } from "./test-vm.ts"

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
      message: expect.stringContaining("No space left on device"),
    })
    expect(paused).toBe(false)
    expect((await readdir(dir)).sort()).toEqual(before.sort())
    await expect(access(join(place.root, "memory"))).rejects.toMatchObject({ code: "ENOENT" })
    await writeFile(join(dir, "ballast"), "")
    // What the guest prints meanwhile may be lost with the rest.
    await untilTicks(dir, 3, ticks(serial(dir)).length)
  },
)
