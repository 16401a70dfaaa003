import { execFile } from "node:child_process"
import { createReadStream, statSync } from "node:fs"
import { readFile, readdir, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { builtinImage } from "@stillframe/hypervisors/images"
import type { Captured } from "@stillframe/hypervisors/qemu/capture/capture"
import { savesLive } from "@stillframe/hypervisors/qemu/capture/live-save"
import { withMonitor } from "@stillframe/hypervisors/qemu/monitor/qmp"
import { ensureRunning } from "@stillframe/hypervisors/qemu/monitor/resume"
import { probeQemu } from "@stillframe/hypervisors/qemu/probe/probe"
import { probeLiveCapture } from "@stillframe/hypervisors/qemu/probe/probe-live"
import { counts } from "@stillframe/stillframe/console"
import { installImages } from "@stillframe/stillframe/stack/install-images"
import { describe, expect, test } from "vitest"
import { expectRunning, findLiveQemu, live, plainDisk, start, startLarge, status } from "./live-vm.ts"
import {
  capture,
  firstGap,
  fork,
  ground,
  heartbeat,
  never,
  qemu,
  serial,
  startHeartbeat,
  ticks,
  untilTicks,
  type Ground,
  type TestVm,
} from "./test-vm.ts"

const run = promisify(execFile)
const { version } = await probeQemu(qemu.binary, never)

describe.skipIf(!live.live_capture)("a live capture", () => {
  test("restores where the guest stood still, though it went on while its memory was saved", async () => {
    await using place = await ground()
    const vm = await startLarge(place)
    const resume = atResume(place, vm)

    const captured = await capture(place, vm, "memory", { mode: "live", afterResume: resume.afterResume })

    expect(resume.savedBytes).toBeLessThan((await stat(captured.memoryFile)).size)
    expect(firstGap(serial(vm.dir))).toBeUndefined()
    const copy = await fork(place, vm, captured, "fork", createReadStream(captured.memoryFile))
    expect(firstGap(captured.printed + serial(copy.dir))).toBeUndefined()
    expect(captured.wasRunning).toBe(true)
  })

  test("holds the memory and the disk of one moment of a Linux guest that writes both all the time", async () => {
    await using place = await ground()
    const vm = await startDemo(place)
    await untilTicks(vm.dir, 20)
    const resume = atResume(place, vm)
    const captured = await capture(place, vm, "memory", { mode: "live", afterResume: resume.afterResume })
    expect(resume.savedBytes).toBeLessThan((await stat(captured.memoryFile)).size)

    const copy = await fork(place, vm, captured, "fork", createReadStream(captured.memoryFile))

    await writeFile(join(place.root, "both"), captured.printed + serial(copy.dir))
    const [all, source] = await Promise.all([
      counts(join(place.root, "both")),
      counts(join(vm.dir, "serial.log")),
    ])
    expect(all.map(({ count }) => count)).toEqual(all.map((_, index) => index + 1))
    expect(source.map(({ count }) => count)).toEqual(source.map((_, index) => index + 1))
    expect(new Set([...all, ...source].map(({ checksum, bootId }) => `${checksum} ${bootId}`)).size).toBe(1)
    // Printed just before it is written, so the disk may be one step behind and never ahead.
    const last = (captured.printed.match(/^COUNT /gm) ?? []).length
    const onDisk = Number(
      /^COUNT (\d+) /.exec((await frozenSector(vm, captured, 2048)).toString("latin1"))?.[1],
    )
    expect([last - (last % 8), last - (last % 8) - 8]).toContain(onDisk)
  })

  test("holds the disk as of the stop, not as of the save's end", async () => {
    await using place = await ground()
    const disk = await plainDisk(place)
    const vm = await startLarge(place, [disk])
    await writeToDisk(vm, 0x11)

    const first = await capture(place, vm, "first", {
      mode: "live",
      afterResume: async () => await writeToDisk(vm, 0x22),
    })
    const second = await capture(place, vm, "second", { mode: "live" })

    expect((await frozenSector(vm, first, 0))[0]).toBe(0x11)
    expect((await frozenSector(vm, second, 0))[0]).toBe(0x22)
    expect((await readFile(disk.path))[0]).toBe(8)
  })

  test("leaves nothing switched on for the paused capture that follows", async () => {
    await using place = await ground()
    const vm = await start(place)
    await capture(place, vm, "live", { mode: "live" })

    const paused = await capture(place, vm, "paused")

    expect(await capability(vm, "background-snapshot")).toBe(false)
    const copy = await fork(place, vm, paused, "fork", createReadStream(paused.memoryFile))
    expect(firstGap(paused.printed + serial(copy.dir))).toBeUndefined()
  })

  test("is tried on a host without leaving anything behind", async () => {
    await using place = await ground()
    const dir = await place.folder("trials")
    const { machines, version: binaryVersion } = await probeQemu(live.binary, never)
    const guest = { machine: machines.q35, accel: "tcg", kernel: heartbeat, memoryMib: 64 } as const
    const trial = { ...guest, binary: live.binary, version: binaryVersion, dir }

    const works = await probeLiveCapture({ ...trial, signal: never })
    const broken = await probeLiveCapture({ ...trial, machine: "pc-q35-0.1", signal: never })
    const cancelled = probeLiveCapture({ ...trial, signal: AbortSignal.abort() })

    expect(works).toEqual({ live_capture: true })
    expect(broken).toMatchObject({
      live_capture: false,
      reason: expect.stringContaining("does not know the machine"),
    })
    await expect(cancelled).rejects.toMatchObject({ code: "cancelled" })
    expect(await readdir(dir)).toEqual([])
  })

  test("of a VM that stands still anyway, or is to, is a paused one", async () => {
    await using place = await ground()
    const vm = await start(place)

    const kept = await capture(place, vm, "kept", { mode: "live", keepPaused: true })
    expect(await status(vm)).toMatchObject({ running: false })
    await withMonitor(vm.dir, "command.sock", ensureRunning)
    await withMonitor(vm.dir, "command.sock", async (monitor) => await monitor.execute("stop"))
    const still = await capture(place, vm, "still", { mode: "live" })

    expect([kept.wasRunning, still.wasRunning]).toEqual([true, false])
    expect(await status(vm)).toMatchObject({ running: false })
  })
})

test.skipIf(savesLive(version))("an older QEMU refuses a live capture before anything is done", async () => {
  await using place = await ground()
  const vm = await startHeartbeat(place, { disks: [await plainDisk(place)] })
  let asked = false

  const attempt = capture(place, vm, "memory", { mode: "live", beforePause: () => void (asked = true) })

  await expect(attempt).rejects.toMatchObject({
    code: "not_supported",
    message: expect.stringContaining(version),
  })
  expect(asked).toBe(false)
  expect(await readdir(place.root)).not.toContain("memory")
  expect((await readdir(vm.dir)).filter((name) => name.endsWith(".qcow2"))).toEqual(["disk0.0.qcow2"])
  await expectRunning(vm)
  expect(await findLiveQemu({ binary: qemu.binary })).toMatchObject({
    live_capture: false,
    reason: expect.stringContaining(version),
  })
})

/** At the resume: how much was saved by then. The capture goes on when the guest has printed another line. */
function atResume(
  place: Ground,
  vm: TestVm,
): { readonly savedBytes: number; readonly afterResume: () => Promise<void> } {
  let savedBytes = Number.POSITIVE_INFINITY
  return {
    get savedBytes() {
      return savedBytes
    },
    afterResume: async () => {
      savedBytes = statSync(join(place.root, "memory")).size
      await untilTicks(vm.dir, 1, ticks(serial(vm.dir)).length)
    },
  }
}

/** A Linux that counts in its memory and now and then on its disk. */
async function startDemo(place: Ground): Promise<TestVm> {
  const images = join(place.root, "images")
  await installImages(images)
  return await start(place, { disks: [await plainDisk(place, 4)], change: builtinImage("demo", images) })
}

/** Writes the first sector through the VM's own device, beside the capture that holds the other monitor. */
async function writeToDisk(vm: TestVm, byte: number): Promise<void> {
  const line = `qemu-io -d /machine/peripheral/disk0/virtio-backend "write -P ${byte} 0 512"`
  const said = await withMonitor(vm.dir, "watch.sock", async (monitor) => {
    return await monitor.execute("human-monitor-command", { "command-line": line })
  })
  expect(said).not.toContain("rror")
}

async function frozenSector(vm: TestVm, { disks }: Captured, sector: number): Promise<Buffer> {
  const out = join(vm.dir, "sector")
  const range = ["bs=512", `skip=${sector}`, `count=${sector + 1}`]
  const files = [`if=${disks[0]?.layers[0]?.file}`, `of=${out}`]
  await run(qemu.qemuImg, ["dd", "-U", "-f", "qcow2", "-O", "raw", ...range, ...files], { cwd: vm.dir })
  return await readFile(out)
}

async function capability(vm: TestVm, name: string): Promise<boolean | undefined> {
  return await withMonitor(vm.dir, "command.sock", async (monitor) => {
    const all = await monitor.execute<{ capability: string; state: boolean }[]>("query-migrate-capabilities")
    return all.find((each) => each.capability === name)?.state
  })
}
