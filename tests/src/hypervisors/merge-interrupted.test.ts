import { createReadStream } from "node:fs"
import { mergeLayers } from "@stillframe/hypervisors/qemu/layers/merge"
import { expect, test } from "vitest"
import {
  BLOCKS,
  MIB,
  run,
  startWithDisk,
  relaunch,
  captures,
  pattern,
  blocksIn,
  slow,
  killMerging,
  killQemu,
  leaveCopied,
  execute,
  jobsOf,
  overlaysIn,
  files,
} from "./merge-vm.ts"
import { capture, firstGap, fork, ground, never, qemu, serial } from "./test-vm.ts"

test("an aborted merge has let go of the disk when it throws, and the next one finishes", async () => {
  await using place = await ground()
  const vm = await startWithDisk(place)
  await captures(place, vm, 3)
  const stop = new AbortController()

  const attempt = mergeLayers({ ...slow(vm), onProgress: () => stop.abort(), signal: stop.signal })

  await expect(attempt).rejects.toMatchObject({ code: "cancelled" })
  expect(await jobsOf(vm)).toEqual([])
  expect(await overlaysIn(vm)).toHaveLength(4)
  expect(await blocksIn(vm.dir, "disk0.3.qcow2")).toEqual(pattern(4))
  expect(files((await mergeLayers({ dir: vm.dir, layersMax: 1, signal: never }))[0])).toHaveLength(2)
  expect(await blocksIn(vm.dir, "disk0.3.qcow2")).toEqual(pattern(4))
})

test("a capture ends a merge that somebody left under way, and both it and the next merge are whole", async () => {
  await using place = await ground()
  const vm = await startWithDisk(place)
  await captures(place, vm, 3)
  await killMerging(vm)

  const captured = await capture(place, vm, "during")

  expect(await jobsOf(vm)).toEqual([])
  const copy = await fork(place, vm, captured, "fork", createReadStream(captured.memoryFile))
  expect(firstGap(captured.printed + serial(copy.dir))).toBeUndefined()
  expect(await blocksIn(copy.dir, "disk0.4.qcow2")).toEqual(pattern(4))
  const [disk] = await mergeLayers({ dir: vm.dir, layersMax: 1, signal: never })
  expect(files(disk)).toEqual(["disk0.4.qcow2", "disk0.base"])
  expect(await blocksIn(vm.dir, "disk0.4.qcow2")).toEqual(pattern(4))
})

test("a capture undoes a merge that was copied but not finished", async () => {
  await using place = await ground()
  const vm = await startWithDisk(place)
  await captures(place, vm, 3)
  await leaveCopied(vm)

  const captured = await capture(place, vm, "during")

  expect(await jobsOf(vm)).toEqual([])
  expect(files(captured.disks[0])).toHaveLength(5)
  const copy = await fork(place, vm, captured, "fork", createReadStream(captured.memoryFile))
  expect(await blocksIn(copy.dir, "disk0.4.qcow2")).toEqual(pattern(4))
})

test("a merge whose caller was killed goes on, and the next call takes it up", async () => {
  await using place = await ground()
  const vm = await startWithDisk(place)
  await captures(place, vm, 3)
  await killMerging(vm)

  const [disk] = await mergeLayers({ dir: vm.dir, signal: never })

  // Three layers are fewer than a merge of its own would be started for.
  expect(files(disk)).toEqual(["disk0.3.qcow2", "disk0.base"])
  expect(await overlaysIn(vm)).toEqual(["disk0.3.qcow2"])
  expect(await blocksIn(vm.dir, "disk0.3.qcow2")).toEqual(pattern(4))
})

test("a merge that was copied but not finished when its caller was killed is finished by the next call", async () => {
  await using place = await ground()
  const vm = await startWithDisk(place)
  await captures(place, vm, 3)
  await leaveCopied(vm)

  await mergeLayers({ dir: vm.dir, signal: never })
  await killQemu(vm)

  expect(await overlaysIn(vm)).toEqual(["disk0.3.qcow2"])
  expect(await blocksIn(vm.dir, "disk0.3.qcow2")).toEqual(pattern(4))
})

test("a QEMU killed in the middle of a merge leaves a whole chain, and a VM on it can be merged", async () => {
  await using place = await ground()
  const vm = await startWithDisk(place)
  await captures(place, vm, 3)
  const killed = Promise.withResolvers<void>()
  const onProgress = ({ bytes }: { bytes: number }): void => {
    if (bytes > MIB) killed.resolve(killQemu(vm))
  }

  const attempt = mergeLayers({ ...slow(vm), onProgress, signal: never })

  await expect(attempt).rejects.toMatchObject({ code: "hypervisor_gone" })
  await killed.promise
  await run(qemu.qemuImg, ["check", "-q", "disk0.3.qcow2"], { cwd: vm.dir })
  expect(await blocksIn(vm.dir, "disk0.3.qcow2")).toEqual(pattern(4))
  const again = await relaunch(place, vm)
  expect(files((await mergeLayers({ dir: vm.dir, layersMax: 1, signal: never }))[0])).toHaveLength(2)
  expect(await overlaysIn(again)).toEqual(["disk0.4.qcow2"])
  expect(await blocksIn(vm.dir, "disk0.4.qcow2")).toEqual(pattern(4))
})

test("a foreign block job is a conflict that names it, and nothing is merged", async () => {
  await using place = await ground()
  const vm = await startWithDisk(place)
  await captures(place, vm, 2)
  await execute(vm, "blockdev-add", { driver: "null-co", "node-name": "nowhere", size: BLOCKS * MIB })
  await execute(vm, "blockdev-mirror", {
    "job-id": "foreign",
    device: "disk0-2",
    target: "nowhere",
    sync: "full",
  })

  const attempt = mergeLayers({ dir: vm.dir, layersMax: 1, signal: never })

  await expect(attempt).rejects.toMatchObject({
    code: "conflict",
    message: expect.stringContaining("foreign"),
  })
  expect(await overlaysIn(vm)).toHaveLength(3)
})
