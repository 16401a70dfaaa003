import { spawnSync } from "node:child_process"
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { basename, join } from "node:path"
import { gzipSync } from "node:zlib"
import type { Apt } from "./apt.ts"
import { cpioArchive, type CpioMember } from "./cpio.ts"
import { checkout, tools, unfinished } from "./paths.ts"
import { SetupProblem } from "./problem.ts"
import { step } from "./step.ts"

const guests = join(tools, "guests")
const demo = join(guests, "demo")
const parts = join(tools, "demo-guest-parts")
const initramfs = join(demo, "initramfs.cpio.gz")
const sources = join(checkout, "packages", "hypervisors", "guests")
const init = join(sources, "demo-init.sh")

// Debian's small kernel for virtual machines, and Ubuntu's.
const kernelPackages = ["linux-image-cloud-amd64", "linux-image-virtual"]

// What a virtio disk needs. Debian has them as modules, Ubuntu in the kernel.
const wantedModules = ["virtio_pci", "virtio_blk"]

export function isDemoGuestFetched(): boolean {
  return existsSync(parts)
}

/** Brings a kernel, the modules of a virtio disk and busybox: all that needs a network. */
export function fetchDemoGuest(apt: () => Apt): void {
  step("Kernel and busybox", parts, () => {
    const opened = apt()
    const half = join(unfinished, "demo-guest-parts")
    const unpacked = join(unfinished, "kernel")
    mkdirSync(join(half, "modules"), { recursive: true })
    opened.unpack([realKernel(opened), "busybox-static"], unpacked)
    const busybox = ["bin/busybox", "usr/bin/busybox"]
      .map((path) => join(unpacked, path))
      .find((path) => existsSync(path))
    const kernel = readdirSync(join(unpacked, "boot")).find((name) => name.startsWith("vmlinuz-"))
    if (busybox === undefined || kernel === undefined) {
      throw new SetupProblem("The packages of the kernel and of busybox hold no kernel or no busybox")
    }
    copyFileSync(busybox, join(half, "busybox"))
    copyFileSync(join(unpacked, "boot", kernel), join(half, "vmlinuz"))
    copyModules(unpacked, join(half, "modules"))
    rmSync(unpacked, { recursive: true })
    renameSync(half, parts)
  })
}

/** Puts both guests where the stack and the tests look for them; made again when their sources are newer. */
export function buildGuests(): void {
  copyIfNewer(join(sources, "heartbeat.elf"), join(guests, "heartbeat.elf"))
  if (!existsSync(parts)) return
  copyIfNewer(join(parts, "vmlinuz"), join(demo, "vmlinuz"))
  if (isNewer(initramfs, init) && isNewer(initramfs, parts)) return
  step("Demo guest", demo, () => publish(gzipSync(cpioArchive(initramfsMembers())), initramfs))
}

function realKernel(apt: Apt): string {
  for (const name of kernelPackages) {
    const real = packageKnown(apt, name)?.find((dependency) => /^linux-image-\d/.test(dependency))
    if (real !== undefined) return real
  }
  throw new SetupProblem(`The package sources have neither ${kernelPackages.join(" nor ")}`)
}

function packageKnown(apt: Apt, name: string): string[] | undefined {
  try {
    return apt.dependencies(name)
  } catch (thrown) {
    // Each of the two names exists in one of the two distributions only.
    if (thrown instanceof SetupProblem) return undefined
    throw thrown
  }
}

/** Copies the wanted modules and what they depend on, uncompressed, numbered in the order of loading. */
function copyModules(unpacked: string, target: string): void {
  const roots = ["lib/modules", "usr/lib/modules"]
    .map((path) => join(unpacked, path))
    .filter((path) => existsSync(path))
  const files = roots.flatMap((root) =>
    readdirSync(root, { recursive: true, encoding: "utf8" }).map((path) => join(root, path)),
  )
  const loaded = new Set<string>()
  const load = (name: string): void => {
    const file = files.find((path) => moduleName(path) === name)
    if (file === undefined || loaded.has(name)) return
    const content = readModule(file)
    for (const dependency of moduleDependencies(content)) load(dependency)
    loaded.add(name)
    writeFileSync(join(target, `${String(loaded.size).padStart(2, "0")}-${name}.ko`), content)
  }
  for (const name of wantedModules) load(name)
}

function moduleName(path: string): string | undefined {
  return /^(.+)\.ko(?:\.\w+)?$/.exec(basename(path))?.[1]?.replaceAll("-", "_")
}

/** The module's own list (`depends=a,b` in its .modinfo section): packages come without a modules.dep. */
function moduleDependencies(content: Buffer): string[] {
  const list = /\0depends=([\w,-]*)\0/.exec(content.toString("latin1"))?.[1] ?? ""
  return list
    .split(",")
    .filter((name) => name !== "")
    .map((name) => name.replaceAll("-", "_"))
}

function readModule(file: string): Buffer {
  if (file.endsWith(".ko")) return readFileSync(file)
  // apt itself unpacks every format that packages use; xz is not part of Node.
  const result = spawnSync("/usr/lib/apt/apt-helper", ["cat-file", file], { maxBuffer: 64 << 20 })
  if (result.status !== 0)
    throw new SetupProblem(`${file} could not be uncompressed: ${result.stderr.toString().trim()}`)
  return result.stdout
}

function initramfsMembers(): CpioMember[] {
  const modules = readdirSync(join(parts, "modules")).sort()
  return [
    { name: "bin", mode: 0o755 },
    { name: "dev", mode: 0o755 },
    { name: "modules", mode: 0o755 },
    // The kernel opens it for /init before anything is mounted.
    { name: "dev/console", mode: 0o600, device: [5, 1] },
    { name: "bin/busybox", mode: 0o755, data: readFileSync(join(parts, "busybox")) },
    { name: "init", mode: 0o755, data: readFileSync(init) },
    ...modules.map((name) => ({
      name: `modules/${name}`,
      mode: 0o644,
      data: readFileSync(join(parts, "modules", name)),
    })),
  ]
}

function isNewer(made: string, source: string): boolean {
  const stats = statSync(made, { throwIfNoEntry: false })
  return stats !== undefined && stats.mtimeMs >= statSync(source).mtimeMs
}

function copyIfNewer(source: string, target: string): void {
  if (!isNewer(target, source)) publish(readFileSync(source), target)
}

/** By rename, so that a guest that starts at this very moment reads the old file or the new one. */
function publish(content: Uint8Array, target: string): void {
  const half = join(unfinished, basename(target))
  mkdirSync(join(target, ".."), { recursive: true })
  writeFileSync(half, content)
  renameSync(half, target)
}
