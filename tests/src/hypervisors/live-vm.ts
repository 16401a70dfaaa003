import { createReadStream } from "node:fs"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { DiskConfig } from "@stillframe/hypervisors/launch-config"
import { withMonitor } from "@stillframe/hypervisors/qemu/monitor/qmp"
import { probeQemu } from "@stillframe/hypervisors/qemu/probe/probe"
import { probeLiveCapture, type LiveCaptureProbe } from "@stillframe/hypervisors/qemu/probe/probe-live"
import { findProgram } from "@stillframe/runtime/find-program"
import { expect } from "vitest"
import {
  capture,
  firstGap,
  fork,
  heartbeat,
  never,
  qemu,
  serial,
  startHeartbeat,
  ticks,
  untilTicks,
  type Ground,
  type TestVm,
  type VmOptions,
} from "./test-vm.ts"

/** Enough for the save to be under way for half a second or more when the guest goes on. */
export const LARGE_MIB = 512

export interface LiveQemu extends LiveCaptureProbe {
  binary: string
}

/**
 * The set-up's QEMU 10 where it could be had, else the QEMU of all tests; and whether it saves memory of a
 * running guest here.
 */
export async function findLiveQemu(change: { binary?: string } = {}): Promise<LiveQemu> {
  const binary = change.binary ?? findProgram("qemu-system-x86_64-10", process.env["PATH"])
  const { version, machines } = await probeQemu(binary, never).catch(() => ({
    version: "",
    machines: undefined,
  }))
  if (machines === undefined) return await findLiveQemu({ binary: qemu.binary })
  const dir = await mkdtemp(join(tmpdir(), "stillframe-live-"))
  try {
    const guest = { machine: machines.q35, accel: "tcg", kernel: heartbeat, memoryMib: 64 } as const
    return { binary, ...(await probeLiveCapture({ ...guest, binary, version, dir, signal: never })) }
  } finally {
    await rm(dir, { recursive: true })
  }
}

export const live = await findLiveQemu()
if (!live.live_capture) console.warn(`live capture is not tested: ${live.reason}`)

export const start = async (place: Ground, options: VmOptions = {}): Promise<TestVm> =>
  await startHeartbeat(place, { ...options, binary: live.binary })

/** One whose save is under way for a while when it goes on. */
export const startLarge = async (place: Ground, disks: DiskConfig[] = []): Promise<TestVm> =>
  await start(place, { disks, change: { memoryMib: LARGE_MIB } })

export async function plainDisk(place: Ground, mib = 1) {
  const path = join(place.root, "plain.raw")
  await writeFile(path, Buffer.alloc(mib * 1024 * 1024, 8))
  return { path, format: "raw", readonly: false } as const
}

/** It runs, has not missed a step, and the next live capture of it works. */
export async function expectUnharmed(place: Ground, vm: TestVm): Promise<void> {
  await expectRunning(vm)
  expect(firstGap(serial(vm.dir))).toBeUndefined()
  const next = await capture(place, vm, "next", { mode: "live" })
  const copy = await fork(place, vm, next, "next-fork", createReadStream(next.memoryFile))
  expect(firstGap(next.printed + serial(copy.dir))).toBeUndefined()
}

export async function expectRunning(vm: TestVm): Promise<void> {
  expect(await status(vm)).toMatchObject({ status: "running", running: true })
  await untilTicks(vm.dir, 5, ticks(serial(vm.dir)).length)
}

export async function status(vm: TestVm): Promise<unknown> {
  return await withMonitor(vm.dir, "command.sock", async (monitor) => await monitor.execute("query-status"))
}
