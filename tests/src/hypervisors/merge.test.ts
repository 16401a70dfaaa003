import { createReadStream } from "node:fs"
import { stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { readQcow2Header } from "@stillframe/hypervisors/disks/qcow2-header"
import { linkFiles } from "@stillframe/hypervisors/files/link-files"
import { openFiles } from "@stillframe/hypervisors/process/processes"
import { sealLayers } from "@stillframe/hypervisors/qemu/layers/layers"
import { mergeLayers } from "@stillframe/hypervisors/qemu/layers/merge"
import { immutableFiles } from "@stillframe/hypervisors/qemu/process/prepare-launch"
import { expect, test } from "vitest"
import {
  BLOCKS,
  MIB,
  run,
  startWithDisk,
  startWithoutBase,
  captures,
  pattern,
  blocksIn,
  blocksInChain,
  killQemu,
  execute,
  jobsOf,
  nodesOf,
  overlaysIn,
  files,
  UNTOUCHED,
} from "./merge-vm.ts"
import {
  capture,
  firstGap,
  fork,
  ground,
  never,
  qemu,
  serial,
  startHeartbeat,
  type TestCapture,
} from "./test-vm.ts"

test("a disk with more than eight layers is merged into its active one, and its guest runs on", async () => {
  await using place = await ground()
  const vm = await startWithDisk(place)
  await captures(place, vm, 8)

  const [disk] = await mergeLayers({ dir: vm.dir, signal: never })

  expect(files(disk)).toEqual(["disk0.8.qcow2", "disk0.base"])
  expect(await readQcow2Header(join(vm.dir, "disk0.8.qcow2"))).toMatchObject({
    backingFile: "disk0.base",
    backingFormat: "raw",
  })
  expect(await overlaysIn(vm)).toEqual(["disk0.8.qcow2"])
  expect(await nodesOf(vm)).toEqual(["disk0-8", "disk0-base-1"])
  expect((await openFiles(vm.process.pid)).filter((name) => name.includes("deleted"))).toEqual([])
  expect(await jobsOf(vm)).toEqual([])
  expect(await blocksIn(vm.dir, "disk0.8.qcow2")).toEqual(pattern(9))
  expect(firstGap(serial(vm.dir))).toBeUndefined()
})

test("a disk with eight layers is left alone", async () => {
  await using place = await ground()
  const vm = await startWithDisk(place)
  await captures(place, vm, 7)

  const [disk] = await mergeLayers({ dir: vm.dir, signal: never })

  expect(files(disk)).toHaveLength(9)
  expect(await overlaysIn(vm)).toHaveLength(8)
})

test("a VM that a person has paused is merged and stays paused", async () => {
  await using place = await ground()
  const vm = await startWithDisk(place)
  await captures(place, vm, 2)
  await execute(vm, "stop")

  const [disk] = await mergeLayers({ dir: vm.dir, layersMax: 2, signal: never })

  expect(files(disk)).toEqual(["disk0.2.qcow2", "disk0.base"])
  expect(await execute(vm, "query-status")).toMatchObject({ status: "paused" })
})

test("what a merge copied is in the file before its header names the base", async () => {
  await using place = await ground()
  const vm = await startWithDisk(place)
  await captures(place, vm, 3)

  await mergeLayers({ dir: vm.dir, layersMax: 3, signal: never })
  await killQemu(vm)

  expect(await blocksIn(vm.dir, "disk0.3.qcow2")).toEqual(pattern(4))
})

test("snapshots from before a merge restore from their own links, and layers without a link free their bytes", async () => {
  await using place = await ground()
  const vm = await startWithDisk(place)
  const all = await captures(place, vm, 3)
  const [, second] = all as [TestCapture, TestCapture, TestCapture]
  const payload = await place.folder("payload")
  await linkFiles(
    immutableFiles(vm.config, second.disks).map(({ file }) => file),
    vm.dir,
    payload,
    never,
  )
  await sealLayers(second.disks, payload)

  await mergeLayers({ dir: vm.dir, layersMax: 1, signal: never })

  expect(await overlaysIn(vm)).toEqual(["disk0.3.qcow2"])
  expect((await stat(join(payload, "disk0.1.qcow2"))).nlink).toBe(1)
  const copy = await fork(place, { ...vm, dir: payload }, second, "fork", createReadStream(second.memoryFile))
  expect(firstGap(second.printed + serial(copy.dir))).toBeUndefined()
  expect(await blocksIn(copy.dir, "disk0.2.qcow2")).toEqual(pattern(2))
})

test("a snapshot taken after a merge restores, with every block as it was", async () => {
  await using place = await ground()
  const vm = await startWithDisk(place)
  await captures(place, vm, 3)
  await mergeLayers({ dir: vm.dir, layersMax: 1, signal: never })

  const captured = await capture(place, vm, "after")
  const copy = await fork(place, vm, captured, "fork", createReadStream(captured.memoryFile))

  expect(files(captured.disks[0])).toEqual(["disk0.3.qcow2", "disk0.base"])
  expect(firstGap(captured.printed + serial(copy.dir))).toBeUndefined()
  expect(await blocksIn(copy.dir, "disk0.4.qcow2")).toEqual(pattern(4))
})

test("a restored VM is merged like a launched one", async () => {
  await using place = await ground()
  const vm = await startWithDisk(place)
  const [, captured] = (await captures(place, vm, 2)) as [TestCapture, TestCapture]
  const copy = await fork(place, vm, captured, "fork", createReadStream(captured.memoryFile))

  const [disk] = await mergeLayers({ dir: copy.dir, layersMax: 1, signal: never })

  expect(files(disk)).toEqual(["disk0.2.qcow2", "disk0.base"])
  expect(await overlaysIn(copy)).toEqual(["disk0.2.qcow2"])
  expect(await nodesOf(copy)).toEqual(["disk0-2", "disk0-base-1"])
  expect(await blocksIn(copy.dir, "disk0.2.qcow2")).toEqual(pattern(2))
})

test("every writable disk is merged; a qcow2 image with a backing file stays the base", async () => {
  await using place = await ground()
  const { root } = place
  await writeFile(join(root, "lower.raw"), Buffer.alloc(BLOCKS * MIB, UNTOUCHED))
  await writeFile(join(root, "second.raw"), Buffer.alloc(MIB, UNTOUCHED))
  const upper = join(root, "upper.qcow2")
  await run(qemu.qemuImg, ["create", "-q", "-f", "qcow2", "-b", "lower.raw", "-F", "raw", upper])
  const vm = await startHeartbeat(place, {
    disks: [
      { path: join(root, "lower.raw"), format: "raw", readonly: true },
      { path: upper, format: "qcow2", readonly: false },
      { path: join(root, "second.raw"), format: "raw", readonly: false },
    ],
  })
  await captures(place, vm, 3, 1)

  const [readonly, disk, second] = await mergeLayers({ dir: vm.dir, layersMax: 1, signal: never })

  expect(files(readonly)).toEqual(["disk0.base"])
  expect(files(disk)).toEqual(["disk1.3.qcow2", "disk1.base", "disk1.1.base"])
  expect(files(second)).toEqual(["disk2.3.qcow2", "disk2.base"])
  expect(await overlaysIn(vm)).toEqual(["disk1.3.qcow2", "disk2.3.qcow2"])
  expect(await readQcow2Header(join(vm.dir, "disk1.3.qcow2"))).toMatchObject({
    backingFile: "disk1.base",
    backingFormat: "qcow2",
  })
  expect(await blocksInChain(vm.dir, disk)).toEqual(pattern(4))
})

test("a disk that has no file below its overlays becomes a single file", async () => {
  await using place = await ground()
  const vm = await startWithoutBase(place)
  await captures(place, vm, 3)

  const [disk] = await mergeLayers({ dir: vm.dir, layersMax: 1, signal: never })

  expect(files(disk)).toEqual(["disk0.3.qcow2"])
  expect(await readQcow2Header(join(vm.dir, "disk0.3.qcow2"))).not.toHaveProperty("backingFile")
  expect(await overlaysIn(vm)).toEqual(["disk0.3.qcow2"])
  expect(await blocksIn(vm.dir, "disk0.3.qcow2")).toEqual(pattern(4, 0))
})
