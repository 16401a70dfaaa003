import { execFile } from "node:child_process"
import { createReadStream, existsSync } from "node:fs"
import { chmod, copyFile, link, readdir, readFile, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import type { AttachedVm } from "@stillframe/hypervisors/attached"
import { assertSourcesUnchanged, type Disk } from "@stillframe/hypervisors/disks/disks"
import { linkFiles } from "@stillframe/hypervisors/files/link-files"
import { endProcess } from "@stillframe/hypervisors/process/processes"
import { addOverlays } from "@stillframe/hypervisors/qemu/layers/layers"
import { startGuest } from "@stillframe/hypervisors/qemu/process/prepare-launch"
import { restoreQemu } from "@stillframe/hypervisors/qemu/process/restore"
import { expect, test } from "vitest"
import { canReflink, reflinkingGround } from "./reflinking.ts"
import {
  asOwner,
  attach,
  captureStranger,
  contentOf,
  expectRunning,
  overlaysIn,
  startStranger,
  startWithDisks,
  writeAsGuest,
  type StrangersCapture,
} from "./stranger.ts"
import { firstGap, ground, heartbeat, never, qemu, serial, untilTicks, type Ground } from "./test-vm.ts"

const run = promisify(execFile)
const isRoot = process.getuid?.() === 0
const KIB = 1024

test("a VM without disks is captured and restored as one of ours, and its source runs on", async () => {
  await using place = await ground()
  const stranger = await startStranger(place)
  const vm = await attach(place, stranger)

  const captured = await captureStranger(place, stranger, vm, "payload", { allowOverlay: false })

  expect(captured).toMatchObject({ wasRunning: true, disks: [] })
  expect(firstGap(captured.printed + serial(await restored(place, vm, captured)))).toBeUndefined()
  await expectRunning(stranger)
  expect(await readdir(join(place.root, "home"))).toEqual([])
})

test.each(["q35", "pc", "microvm"])(
  "a %s with a raw, a qcow2 and a read-only disk: all restored, its own files stay the ones it writes",
  async (machine) => {
    await using place = await ground()
    const stranger = await startWithDisks(place, machine)
    const vm = await attach(place, stranger)
    await writeAsGuest(stranger, 0x11)

    const captured = await captureStranger(place, stranger, vm, "payload")
    await writeAsGuest(stranger, 0x22)

    expect(captured.disks.map(({ layers }) => layers.map(({ file }) => file))).toEqual([
      ["disk0.copy"],
      ["disk1.copy", join(place.root, "lower.raw")],
      [join(place.root, "lower.raw")],
    ])
    expect((await readFile(join(captured.dir, "disk0.copy")))[0]).toBe(0x11)
    expect((await contentOf(place, join(place.root, "a.raw"), "raw"))[0]).toBe(0x22)
    expect(await overlaysIn(place)).toEqual([])
    expect(firstGap(captured.printed + serial(await restored(place, vm, captured)))).toBeUndefined()
    await expectRunning(stranger)
  },
)

test.skipIf(!isRoot)("a copy stays the snapshot's where a fork runs as another user", async () => {
  await using place = await ground()
  const stranger = await startWithDisks(place)
  const vm = await attach(place, stranger)
  const captured = await captureStranger(place, stranger, vm, "payload")
  await chmod(join(place.root, "lower.raw"), 0o644)
  await chmod(place.root, 0o711)

  const dir = await restored(place, vm, captured, { uid: 65_534, gid: 65_534 })

  expect((await stat(dir)).uid).toBe(65_534)
  const copy = await stat(join(captured.dir, "disk0.copy"))
  expect([copy.uid, copy.mode & 0o777]).toEqual([0, 0o444])
})

test("without leave to use an overlay: not supported, naming the setting, and the VM is never paused", async () => {
  await using place = await ground()
  const stranger = await startWithDisks(place)
  const vm = await attach(place, stranger)
  let asked = false

  const attempt = captureStranger(place, stranger, vm, "payload", {
    allowOverlay: false,
    beforePause: () => void (asked = true),
  })

  await expect(attempt).rejects.toMatchObject({
    code: "not_supported",
    message: expect.stringContaining("attach.allow_overlay"),
  })
  expect(asked).toBe(false)
  expect(await readdir(join(place.root, "payload"))).toEqual([])
})

test("a VM that was paused before the capture stays paused, on its own files", async () => {
  await using place = await ground()
  const stranger = await startWithDisks(place)
  const vm = await attach(place, stranger)
  await asOwner(stranger, async (monitor) => await monitor.execute("stop"))

  const captured = await captureStranger(place, stranger, vm, "payload")

  expect(captured.wasRunning).toBe(false)
  const status = await asOwner(stranger, async (monitor) => await monitor.execute("query-status"))
  expect(status).toMatchObject({ running: false })
  expect(await overlaysIn(place)).toEqual([])
})

test("disks given as block nodes, one with its options spelled out, are captured and restored", async () => {
  await using place = await ground()
  const [plain, spelled] = [join(place.root, "plain.raw"), join(place.root, "spelled.qcow2")]
  await writeFile(plain, Buffer.alloc(1024 * KIB, 7))
  await run(qemu.qemuImg, ["create", "-q", "-f", "qcow2", spelled, "1M"])
  const file = { driver: "file", filename: spelled }
  const node = { driver: "qcow2", "node-name": "spelled", "read-only": false, backing: null, file }
  const stranger = await startStranger(place, {
    args: [
      ["-blockdev", `driver=file,node-name=file,filename=${plain}`],
      ["-blockdev", "driver=raw,node-name=plain,file=file", "-blockdev", JSON.stringify(node)],
      ["-device", "virtio-blk-pci,drive=spelled,id=first", "-device", "virtio-blk-pci,drive=plain"],
    ].flat(),
  })
  const vm = await attach(place, stranger)
  await writeAsGuest(stranger, 0x11)

  const captured = await captureStranger(place, stranger, vm, "payload")

  expect(vm.launch).toMatchObject({ config: { disks: [{ path: spelled }, { path: plain }] } })
  expect(captured.disks.map(({ layers }) => layers)).toEqual([
    [{ file: "disk0.copy", format: "qcow2" }],
    [{ file: "disk1.copy", format: "raw" }],
  ])
  expect((await contentOf(place, join(captured.dir, "disk0.copy"), "qcow2"))[0]).toBe(0x11)
  expect(firstGap(captured.printed + serial(await restored(place, vm, captured)))).toBeUndefined()
  expect(await overlaysIn(place)).toEqual([])
})

test("the limits that its owner has set for migrations are the same afterwards", async () => {
  await using place = await ground()
  const stranger = await startStranger(place)
  const limits = { "max-bandwidth": 12_345_678 }
  await asOwner(stranger, async (monitor) => await monitor.execute("migrate-set-parameters", limits))

  await captureStranger(place, stranger, await attach(place, stranger), "payload")

  const now = await asOwner(stranger, async (monitor) => await monitor.execute("query-migrate-parameters"))
  expect(now).toMatchObject(limits)
})

test("a data directory with a long path is no obstacle, and nothing is left in the short one", async () => {
  await using place = await ground()
  const stranger = await startStranger(place)
  const vm = await attach(place, stranger)

  const captured = await captureStranger(place, stranger, vm, `${"deep/".repeat(40)}payload`)

  expect(captured.memoryFile.length).toBeGreaterThan(200)
  expect(firstGap(captured.printed)).toBeUndefined()
  expect(
    (await readdir("/tmp")).filter((name) => name.startsWith(`stillframe-save-${process.pid}-`)),
  ).toEqual([])
})

test("a read-only disk that was changed since is found out before a restore", async () => {
  await using place = await ground()
  const stranger = await startWithDisks(place)
  const { disks, dir } = await captureStranger(place, stranger, await attach(place, stranger), "payload")
  await assertSourcesUnchanged(dir, disks)

  await writeFile(join(place.root, "lower.raw"), Buffer.alloc(1024 * KIB, 9))

  await expect(assertSourcesUnchanged(dir, disks)).rejects.toMatchObject({ code: "conflict" })
})

test.skipIf(!canReflink)(
  "where the file system shares blocks the disks are cloned in the pause, and no overlay is made",
  async () => {
    await using place = await ground()
    await using inside = await reflinkingGround(place)
    const stranger = await startWithDisks(inside)
    const vm = await attach(inside, stranger)
    await writeAsGuest(stranger, 0x11)
    const steps: string[] = []

    let clonedInPause = false

    const captured = await asOwner(stranger, async (monitor) => {
      monitor.subscribe(({ event }) => {
        if (event === "RESUME") clonedInPause = existsSync(join(inside.root, "payload", "disk0.copy"))
      })
      const onStep = (step: string): void => void steps.push(step)
      return await captureStranger(inside, stranger, vm, "payload", { allowOverlay: false, onStep })
    })
    await writeAsGuest(stranger, 0x22)

    expect(clonedInPause).toBe(true)
    expect(steps).toEqual([])
    expect((await readFile(join(captured.dir, "disk0.copy")))[0]).toBe(0x11)
    expect((await contentOf(inside, join(inside.root, "a.raw"), "raw"))[0]).toBe(0x22)
    await expectRunning(stranger)
    await endProcess(stranger.process, { graceMs: 0 })
  },
)

/** The directory of a VM of ours that goes on from the capture. */
async function restored(
  ground: Ground,
  vm: AttachedVm,
  captured: StrangersCapture,
  runAs?: { uid: number; gid: number },
): Promise<string> {
  if (!vm.launch.restorable) throw new Error(vm.launch.option)
  const dir = await ground.folder("restored")
  await link(heartbeat, join(dir, "kernel")).catch(async () => await copyFile(heartbeat, join(dir, "kernel")))
  await linkFiles(copiesOf(captured.disks), captured.dir, dir, never)
  const disks = await addOverlays(captured.disks, { dir, qemuImg: qemu.qemuImg, signal: never })
  const { config } = vm.launch
  const launch = {
    dir,
    config,
    disks,
    binary: qemu.binary,
    identity: "stillframe-test-restored",
    signal: never,
  }
  const memory = createReadStream(captured.memoryFile)
  ground.own(await restoreQemu({ ...launch, memory, ...(runAs !== undefined && { runAs }) }))
  await startGuest(dir)
  await untilTicks(dir, 3)
  return dir
}

const copiesOf = (disks: readonly Disk[]): string[] =>
  disks.flatMap(({ layers }) => layers.map(({ file }) => file).filter((file) => file.endsWith(".copy")))
