import { execFile, spawn } from "node:child_process"
import { chmod, chown, mkdir, readdir, readFile, readlink, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import type { AttachedVm, AttachOptions } from "@stillframe/hypervisors/attached"
import { identifyProcess, type ProcessIdentity } from "@stillframe/hypervisors/process/processes"
import { attachQemu } from "@stillframe/hypervisors/qemu/attached/attach"
import { captureAttached, type AttachedCaptureOptions } from "@stillframe/hypervisors/qemu/attached/capture"
import { openControlSocket } from "@stillframe/hypervisors/qemu/attached/control-socket"
import type { Captured } from "@stillframe/hypervisors/qemu/capture/capture"
import { withMonitor, type Monitor } from "@stillframe/hypervisors/qemu/monitor/qmp"
import { expect } from "vitest"
import { captureOptions, rulesOf } from "./stranger-options.ts"
import { firstGap, heartbeat, qemu, serial, ticks, untilTicks, type Ground } from "./test-vm.ts"

const run = promisify(execFile)

/** A VM that someone else started, with a command line of their own. */
export interface Stranger {
  /** Its working directory, with `serial.log`. */
  dir: string
  controlSocket: string
  /** What the wrapper on PATH executes. */
  binary: string
  process: ProcessIdentity
}

export interface StrangerOptions {
  /** Beyond the bare VM. */
  args?: string[]
  machine?: string
  dir?: string
  runAs?: { uid: number; gid: number }
}

export async function startStranger(ground: Ground, options: StrangerOptions = {}): Promise<Stranger> {
  const { args = [], machine = "q35", dir = await ground.folder("stranger"), runAs } = options
  if (runAs !== undefined) await chown(dir, runAs.uid, runAs.gid)
  const bare = ["-machine", `${machine},accel=tcg`, "-m", "64", "-nodefaults", "-display", "none"]
  const fixed = [
    "-kernel",
    heartbeat,
    "-serial",
    "file:serial.log",
    "-qmp",
    "unix:qmp.sock,server=on,wait=off",
    "-qmp",
    "unix:owner.sock,server=on,wait=off",
  ]
  const child = spawn(qemu.binary, [...bare, ...fixed, ...args], {
    cwd: dir,
    detached: true,
    stdio: "ignore",
    ...runAs,
  })
  child.unref()
  const process = await identifyProcess(child.pid ?? 0)
  if (process === undefined) throw new Error("the VM ended at once")
  ground.own(process)
  const controlSocket = join(dir, "qmp.sock")
  await expect.poll(async () => await greets(controlSocket)).toBe(true)
  await untilTicks(dir, 3)
  return { dir, controlSocket, binary: await readlink(`/proc/${process.pid}/exe`), process }
}

async function greets(controlSocket: string): Promise<boolean> {
  return await openControlSocket(controlSocket).then(
    (monitor) => {
      monitor.close()
      return true
    },
    () => false,
  )
}

export async function attach(
  ground: Ground,
  { controlSocket, binary }: Stranger,
  change: Partial<AttachOptions> = {},
): Promise<AttachedVm> {
  return await attachQemu({ controlSocket, binaries: [binary], rules: rulesOf(ground), ...change })
}

export interface StrangersCapture extends Captured {
  dir: string
  memoryFile: string
  printed: string
}

/** Captures into `<name>/` of the ground, as a payload's directory. */
export async function captureStranger(
  ground: Ground,
  { dir: strangersDir }: Stranger,
  vm: AttachedVm,
  name: string,
  change: Partial<AttachedCaptureOptions> = {},
): Promise<StrangersCapture> {
  const dir = await ground.folder(name)
  const memoryFile = join(dir, "memory")
  let printed = ""
  const capture = await captureAttached({
    ...captureOptions(ground, vm, dir),
    memoryFile,
    ...change,
    home: await homeOf(ground),
    onPaused: () => void (printed = serial(strangersDir)),
  })
  return { ...capture, dir, memoryFile, printed }
}

export async function homeOf({ root }: Pick<Ground, "root">): Promise<string> {
  await mkdir(join(root, "home"), { recursive: true })
  return join(root, "home")
}

/** The owner's monitor, which is free while ours is in use. */
export async function asOwner<T>(
  { dir }: { dir: string },
  use: (monitor: Monitor) => Promise<T>,
): Promise<T> {
  return await withMonitor(dir, "owner.sock", use)
}

/** Writes 64 KiB of one byte through the VM's first device and flushes them, as its guest would. */
export async function writeAsGuest(stranger: { dir: string }, byte: number, offsetKib = 0): Promise<void> {
  await asOwner(stranger, async (monitor) => {
    const [block] = await monitor.execute<{ qdev: string }[]>("query-block")
    for (const command of [`write -P ${byte} ${offsetKib}k 64k`, "flush"]) {
      const line = `qemu-io -d ${block?.qdev} "${command}"`
      const said = await monitor.execute("human-monitor-command", { "command-line": line })
      expect(said).toBe("")
    }
  })
}

/** The content of an image that nobody writes, as its guest would read it. */
export async function contentOf(ground: Pick<Ground, "root">, path: string, format: string): Promise<Buffer> {
  const out = join(ground.root, "content")
  await run(qemu.qemuImg, ["convert", "-U", "-f", format, "-O", "raw", path, out])
  return await readFile(out)
}

/** A raw disk, a qcow2 with a backing file, and that file once more as a read-only disk. */
export async function startWithDisks(
  ground: Ground,
  machine = "q35",
  runAs?: { uid: number; gid: number },
): Promise<Stranger> {
  const { root } = ground
  await writeFile(join(root, "a.raw"), Buffer.alloc(1024 * 1024, 7))
  await writeFile(join(root, "lower.raw"), Buffer.alloc(1024 * 1024, 8))
  const create = ["create", "-q", "-f", "qcow2", "-b", "lower.raw", "-F", "raw", "upper.qcow2"]
  await run(qemu.qemuImg, create, { cwd: root })
  if (runAs !== undefined) {
    for (const name of ["a.raw", "upper.qcow2"]) await chmod(join(root, name), 0o666)
    await chmod(join(root, "lower.raw"), 0o644)
  }
  const onPci = machine !== "microvm"
  const drives = [
    ["a.raw", "raw", ",cache=none"],
    ["upper.qcow2", "qcow2", ""],
    ["lower.raw", "raw", ",readonly=on"],
  ].flatMap(([file, format, rest], index) => {
    const drive = `file=${root}/${file},format=${format}${rest}`
    if (onPci) return ["-drive", `${drive},if=virtio`]
    return ["-drive", `${drive},if=none,id=d${index}`, "-device", `virtio-blk-device,drive=d${index}`]
  })
  return await startStranger(ground, { machine, args: drives, ...(runAs !== undefined && { runAs }) })
}

/** The guest prints on, and has missed nothing. */
export async function expectRunning({ dir }: Stranger): Promise<void> {
  await untilTicks(dir, 3, ticks(serial(dir)).length)
  expect(firstGap(serial(dir))).toBeUndefined()
}

export async function overlaysIn({ root }: Pick<Ground, "root">): Promise<string[]> {
  return (await readdir(root)).filter((name) => name.endsWith(".stillframe-overlay"))
}
