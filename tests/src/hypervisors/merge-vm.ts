import { execFile, spawn } from "node:child_process"
import { once } from "node:events"
import { copyFile, readFile, readdir, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { blockNode } from "@stillframe/hypervisors/disks/block-node"
import { readDisks, type Disk } from "@stillframe/hypervisors/disks/disks"
import { processAlive } from "@stillframe/hypervisors/process/processes"
import { addOverlays } from "@stillframe/hypervisors/qemu/layers/layers"
import { withMonitor } from "@stillframe/hypervisors/qemu/monitor/qmp"
import { launchQemu } from "@stillframe/hypervisors/qemu/process/launch"
import { startGuest } from "@stillframe/hypervisors/qemu/process/prepare-launch"
import { expect } from "vitest"
import {
  capture,
  heartbeat,
  heartbeatConfig,
  never,
  qemu,
  startHeartbeat,
  type Ground,
  type TestCapture,
  type TestVm,
  type VmOptions,
} from "./test-vm.ts"

export const run = promisify(execFile)
export const MIB = 1024 * 1024
/** As many blocks as the tests write; block n of a disk lies at n MiB. */
export const BLOCKS = 32
export const UNTOUCHED = 7

export async function startWithDisk(place: Ground, options: VmOptions = {}): Promise<TestVm> {
  const path = join(place.root, "plain.raw")
  await writeFile(path, Buffer.alloc(BLOCKS * MIB, UNTOUCHED))
  return await startHeartbeat(place, { ...options, disks: [{ path, format: "raw", readonly: false }] })
}

export async function startWithoutBase(place: Ground): Promise<TestVm> {
  const dir = await place.folder("vm")
  const file = "disk0.0.qcow2"
  await run(qemu.qemuImg, ["create", "-q", "-f", "qcow2", join(dir, file), String(BLOCKS * MIB)])
  const layers = [{ file, format: "qcow2" as const }]
  const disks: Disk[] = [{ readonly: false, virtualSize: BLOCKS * MIB, layers, sources: [] }]
  return await launchOn(place, dir, disks)
}

/** Starts a VM again on what a dead one left, on a new overlay, as a launch from its directory does. */
export async function relaunch(place: Ground, vm: TestVm, options: VmOptions = {}): Promise<TestVm> {
  await Promise.all(["command.sock", "watch.sock"].map(async (name) => await rm(join(vm.dir, name))))
  const disks = await readDisks(vm.dir, new Map([[0, 3]]))
  const layered = await addOverlays(disks, { dir: vm.dir, qemuImg: qemu.qemuImg, signal: never })
  return await launchOn(place, vm.dir, layered, options)
}

async function launchOn(
  place: Ground,
  dir: string,
  disks: Disk[],
  { runAs }: VmOptions = {},
): Promise<TestVm> {
  const config = await heartbeatConfig()
  await copyFile(heartbeat, join(dir, "kernel"))
  const launch = { dir, config, disks, binary: qemu.binary, identity: "stillframe-test-vm", signal: never }
  const identity = place.own(await launchQemu({ ...launch, ...(runAs && { runAs }) }))
  await startGuest(dir)
  return { dir, config, disks, process: identity }
}

/** No warning, so nothing that QEMU holds in its memory reaches a file. */
export async function killQemu(vm: TestVm): Promise<void> {
  process.kill(vm.process.pid, "SIGKILL")
  await expect.poll(async () => await processAlive(vm.process)).toBe(false)
}

/** Captures a VM so many times; block n is written before the n-th capture, and one more after the last. */
export async function captures(place: Ground, vm: TestVm, count: number, disk = 0): Promise<TestCapture[]> {
  const all: TestCapture[] = []
  for (let n = 0; n < count; n++) {
    await write(vm, n, disk)
    all.push(await capture(place, vm, `memory${n}`))
  }
  await write(vm, count, disk)
  return all
}

/** Puts layers on a chain, one block in each of the first; without captures, which would take minutes. */
export async function stack(vm: TestVm, count: number): Promise<void> {
  let disks = vm.disks
  for (let n = 1; n <= count; n++) {
    if (n <= BLOCKS) await write(vm, n - 1)
    disks = await addOverlays(disks, { dir: vm.dir, qemuImg: qemu.qemuImg, signal: never })
    const file = { driver: "file", filename: `disk0.${n}.qcow2` }
    await execute(vm, "blockdev-add", { driver: "qcow2", "node-name": `disk0-${n}`, file, backing: null })
    await execute(vm, "blockdev-snapshot", { node: `disk0-${n - 1}`, overlay: `disk0-${n}` })
  }
}

/** Fills block n with n + 10 through the VM's own device, and flushes it, as its guest would. */
export async function write(vm: TestVm, n: number, disk = 0): Promise<void> {
  for (const command of [`write -P ${n + 10} ${n}M 1M`, "flush"]) {
    const line = `qemu-io -d /machine/peripheral/disk${disk}/virtio-backend "${command}"`
    expect(await execute(vm, "human-monitor-command", { "command-line": line })).not.toContain("rror")
  }
}

/** What the disk holds after the first so many blocks were written. */
export function pattern(written: number, untouched = UNTOUCHED): number[] {
  return Array.from({ length: BLOCKS }, (_, n) => (n < written ? n + 10 : untouched))
}

/** The byte that each block of a chain is full of; -1 where there is more than one. */
export async function blocksIn(dir: string, file: string): Promise<number[]> {
  const out = join(dir, "whole.raw")
  await convert(dir, ["-f", "qcow2", file], out)
  return await blocksOf(out)
}

/** The blocks of a whole chain, whatever stands in its headers. */
export async function blocksInChain(dir: string, disk: Disk | undefined): Promise<number[]> {
  const out = join(dir, "whole.raw")
  await convert(dir, [`json:${JSON.stringify(blockNode(0, disk?.layers ?? [], true))}`], out)
  return await blocksOf(out)
}

async function convert(dir: string, image: string[], out: string): Promise<void> {
  await run(qemu.qemuImg, ["convert", "-U", "-O", "raw", ...image, out], { cwd: dir })
}

async function blocksOf(out: string): Promise<number[]> {
  const bytes = await readFile(out)
  await rm(out)
  return Array.from({ length: BLOCKS }, (_, n) => {
    const block = bytes.subarray(n * MIB, (n + 1) * MIB)
    const [first = -1] = block
    return block.equals(Buffer.alloc(MIB, first)) ? first : -1
  })
}

/** So slow that whoever looks finds the merge under way: QEMU sleeps after each chunk of half a MiB. */
export const slow = (vm: TestVm): { dir: string; layersMax: number; bytesPerSecond: number } => ({
  dir: vm.dir,
  layersMax: 1,
  bytesPerSecond: 2 * MIB,
})

/** Kills a process that is merging; QEMU goes on. */
export async function killMerging(vm: TestVm): Promise<void> {
  const code = `
    import { flushCompileCache } from "node:module"
    import { mergeLayers } from "@stillframe/hypervisors/qemu/layers/merge"
    const onProgress = ({ bytes }) => bytes > 0 && process.stdout.write("copying")
    flushCompileCache()
    await mergeLayers({ ...${JSON.stringify(slow(vm))}, onProgress, signal: new AbortController().signal })`
  const child = spawn(process.execPath, ["--input-type=module", "--eval", code], {
    cwd: import.meta.dirname,
    stdio: ["ignore", "pipe", "inherit"],
  })
  child.stdout.once("data", () => child.kill("SIGKILL"))
  await once(child, "exit")
  await expect.poll(async () => await jobsOf(vm)).toMatchObject([{ id: "merge-disk0", status: "running" }])
}

/** The merge as its caller leaves it when it dies with all copied and nothing finished. */
export async function leaveCopied(vm: TestVm): Promise<void> {
  const base = { "base-node": "disk0-base-1", "backing-file": "disk0.base" }
  const job = { "job-id": "merge-disk0", device: "disk0-3", "auto-finalize": false, "auto-dismiss": false }
  await execute(vm, "block-stream", { ...job, ...base })
  await expect.poll(async () => await jobsOf(vm)).toMatchObject([{ id: "merge-disk0", status: "pending" }])
}

export async function execute(vm: TestVm, command: string, args?: object): Promise<unknown> {
  return await withMonitor(vm.dir, "command.sock", async (monitor) => await monitor.execute(command, args))
}

export const jobsOf = async (vm: TestVm): Promise<unknown> => await execute(vm, "query-jobs")

/** The named block nodes QEMU has open. */
export async function nodesOf(vm: TestVm): Promise<string[]> {
  const nodes = (await execute(vm, "query-named-block-nodes", { flat: true })) as { "node-name": string }[]
  return nodes
    .map(({ "node-name": name }) => name)
    .filter((name) => name.startsWith("disk"))
    .sort()
}

export async function overlaysIn(vm: TestVm): Promise<string[]> {
  return (await readdir(vm.dir)).filter((name) => name.endsWith(".qcow2")).sort()
}

export const files = (disk: Disk | undefined): string[] => disk?.layers.map(({ file }) => file) ?? []
