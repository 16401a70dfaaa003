import { rm, statfs, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { sealLayers } from "@stillframe/hypervisors/qemu/layers/layers"
import { mergeLayers } from "@stillframe/hypervisors/qemu/layers/merge"
import { blockNodes } from "@stillframe/hypervisors/qemu/monitor/block-nodes"
import { withMonitor } from "@stillframe/hypervisors/qemu/monitor/qmp"
import { expect, test } from "vitest"
import {
  BLOCKS,
  MIB,
  run,
  relaunch,
  startWithDisk,
  captures,
  stack,
  write,
  pattern,
  blocksIn,
  killQemu,
  jobsOf,
  nodesOf,
  overlaysIn,
  files,
} from "./merge-vm.ts"
import { capture, firstGap, ground, never, qemu, serial } from "./test-vm.ts"

const nobody = { uid: 65534, gid: 65534 }
const LAYERS = 101
const isRoot = process.getuid?.() === 0

test("thirty captures with merges between them keep the chain short and every block right", async () => {
  await using place = await ground()
  const vm = await startWithDisk(place)
  const lengths: number[] = []

  for (let n = 0; n < 30; n++) {
    await write(vm, n)
    await rm(join(place.root, "memory"), { force: true })
    await capture(place, vm, "memory")
    lengths.push((await mergeLayers({ dir: vm.dir, signal: never }))[0]?.layers.length ?? 0)
  }

  expect(Math.max(...lengths)).toBe(9)
  expect(await overlaysIn(vm)).toHaveLength((lengths.at(-1) ?? 0) - 1)
  const active = `disk0.30.qcow2`
  await run(qemu.qemuImg, ["check", "-q", "-U", active], { cwd: vm.dir })
  expect(await blocksIn(vm.dir, active)).toEqual(pattern(30))
  expect(firstGap(serial(vm.dir))).toBeUndefined()
})

test("a chain of more than a hundred layers is merged, and asked for in a way that does not hold up its guest", async () => {
  await using place = await ground()
  const vm = await startWithDisk(place)
  const top = `disk0.${LAYERS}.qcow2`
  await stack(vm, LAYERS)
  const [asked, deep] = await withMonitor(
    vm.dir,
    "command.sock",
    async (monitor) =>
      [
        imagesIn(await blockNodes(monitor)),
        imagesIn(await monitor.execute("query-named-block-nodes")),
      ] as const,
  )

  const [disk] = await mergeLayers({ dir: vm.dir, signal: never })

  // QEMU holds its guest up while it describes images: two for each layer here, and by default all those
  // below as well.
  expect(asked).toBeLessThan(3 * LAYERS)
  expect(asked).toBeLessThan(deep / 4)
  expect(files(disk)).toEqual([top, "disk0.base"])
  expect(await overlaysIn(vm)).toEqual([top])
  expect(await nodesOf(vm)).toEqual([`disk0-${LAYERS}`, "disk0-base-1"])
  expect(await blocksIn(vm.dir, top)).toEqual(pattern(BLOCKS))
})

test.skipIf(!isRoot)(
  "a VM of another user is merged though that user may not write its sealed layers",
  async () => {
    await using place = await ground()
    const vm = await startWithDisk(place, { runAs: nobody })
    const last = (await captures(place, vm, 2)).at(-1)
    await sealLayers(last?.disks ?? [], vm.dir)

    const [disk] = await mergeLayers({ dir: vm.dir, layersMax: 1, signal: never })

    expect(files(disk)).toEqual(["disk0.2.qcow2", "disk0.base"])
    expect(await blocksIn(vm.dir, "disk0.2.qcow2")).toEqual(pattern(3))
    expect((await capture(place, vm, "after")).disks[0]?.layers).toHaveLength(2)
  },
)

test.skipIf(!isRoot)("so is one that was started on sealed layers", async () => {
  await using place = await ground()
  const first = await startWithDisk(place, { runAs: nobody })
  const last = (await captures(place, first, 3)).at(-1)
  await sealLayers(last?.disks ?? [], first.dir)
  await killQemu(first)
  const vm = await relaunch(place, first, { runAs: nobody })

  const [disk] = await mergeLayers({ dir: vm.dir, layersMax: 1, signal: never })

  expect(files(disk)).toEqual(["disk0.4.qcow2", "disk0.base"])
  expect(await overlaysIn(vm)).toEqual(["disk0.4.qcow2"])
  expect(await blocksIn(vm.dir, "disk0.4.qcow2")).toEqual(pattern(4))
})

test.skipIf(!isRoot)("a merge that could fill the disk is not begun", async () => {
  await using place = await ground()
  const dir = await place.folder("vm")
  await run("mount", ["-t", "tmpfs", "-o", "size=64m", "tmpfs", dir])
  try {
    const vm = await startWithDisk(place, { dir })
    await captures(place, vm, 3)
    const { bavail, bsize } = await statfs(dir)
    await writeFile(join(dir, "filler"), Buffer.alloc(bavail * bsize - MIB))

    const attempt = mergeLayers({ dir, layersMax: 1, signal: never })

    await expect(attempt).rejects.toMatchObject({
      code: "insufficient_storage",
      message: expect.stringContaining("make room"),
    })
    expect(await overlaysIn(vm)).toHaveLength(4)
    expect(await jobsOf(vm)).toEqual([])
    await killQemu(vm)
  } finally {
    await run("umount", ["-l", dir])
  }
})

/** Images that QEMU describes in an answer. */
function imagesIn(answer: unknown): number {
  return JSON.stringify(answer).split('"filename":').length - 1
}
