import { spawnSync } from "node:child_process"
import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync, writeFileSync } from "node:fs"
import { delimiter, join } from "node:path"
import type { Apt } from "./apt.ts"
import { isCommand, toolsBin } from "./executables.ts"
import { tools, unfinished } from "./paths.ts"
import { SetupProblem } from "./problem.ts"
import { step } from "./step.ts"

/** Commands that come together from some packages of Debian and Ubuntu (the names are the same in both). */
export interface Program {
  readonly title: string
  readonly folder: string
  readonly packages: readonly string[]
  readonly commands: readonly string[]
  /** At the end of our names of the commands, where the plain ones are another version's. */
  readonly suffix?: string
}

export const qemu: Program = {
  title: "QEMU",
  folder: "qemu",
  packages: ["qemu-system-x86", "qemu-utils"],
  commands: ["qemu-system-x86_64", "qemu-img"],
}

/** Beside the release's own, which may be one that cannot save memory while a guest runs. */
export const qemu10: Program = {
  title: "QEMU 10",
  folder: "qemu-10",
  packages: ["qemu-system-x86"],
  commands: ["qemu-system-x86_64"],
  suffix: "-10",
}

export const redis: Program = {
  title: "Redis",
  folder: "redis",
  packages: ["redis-server"],
  commands: ["redis-server"],
}

/** Makes a file system whose files share blocks: only the tests need one. */
export const btrfs: Program = {
  title: "Btrfs",
  folder: "btrfs",
  packages: ["btrfs-progs"],
  commands: ["mkfs.btrfs"],
}

export function isProgramReady(program: Program): boolean {
  return program.commands.every((command) => isCommand(nameOf(command, program)))
}

/** Whether the QEMU that a run would find is of this version or a later one. */
export function isQemuAtLeast(major: number): boolean {
  const env = { ...process.env, PATH: `${process.env.PATH ?? ""}${delimiter}${toolsBin}` }
  const said = spawnSync("qemu-system-x86_64", ["--version"], { encoding: "utf8", env }).stdout ?? ""
  return Number(/version (\d+)\./.exec(said)?.[1] ?? 0) >= major
}

/** Leaves the commands in the set-up's own folder, runnable from there without anything being installed. */
export function bringProgram(program: Program, apt: () => Apt): void {
  const target = join(tools, program.folder)
  step(program.title, target, () => {
    if (!existsSync(target)) {
      const half = join(unfinished, program.folder)
      const opened = apt()
      opened.unpack(opened.closure(program.packages), half)
      renameSync(half, target)
    }
    for (const command of program.commands) writeWrapper(command, program, target)
  })
}

/** Where packages keep their commands; releases differ in it. */
const binaryFolders = ["usr/bin", "bin", "usr/sbin", "sbin"]

const nameOf = (command: string, { suffix = "" }: Program): string => `${command}${suffix}`

function writeWrapper(command: string, program: Program, root: string): void {
  const name = nameOf(command, program)
  const binary = binaryFolders.map((path) => join(path, command)).find((path) => existsSync(join(root, path)))
  if (binary === undefined)
    throw new SetupProblem(`${command} is in none of the packages ${program.packages.join(" ")}`)
  const firmware = ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"].filter((path) =>
    existsSync(join(root, path)),
  )
  const options =
    command === "qemu-system-x86_64" ? firmware.map((path) => ` -L "$root/${path}"`).join("") : ""
  const libraries = libraryFolders(root, 4).map((path) => `$root/${path}`)
  const modules = libraries.find((path) => existsSync(path.replace("$root", root).concat("/qemu")))
  const script = [
    "#!/bin/sh",
    `root="\${0%/*}/../${program.folder}"`,
    ...(libraries.length === 0 ? [] : [`export LD_LIBRARY_PATH="${libraries.join(":")}"`]),
    ...(modules === undefined ? [] : [`export QEMU_MODULE_DIR="${modules}/qemu"`]),
    `exec "$root/${binary}"${options} "$@"`,
    "",
  ]
  mkdirSync(toolsBin, { recursive: true })
  const half = join(unfinished, name)
  writeFileSync(half, script.join("\n"))
  chmodSync(half, 0o755)
  const wrapper = join(toolsBin, name)
  renameSync(half, wrapper)
  const trial = spawnSync(wrapper, ["--version"], { encoding: "utf8" })
  if (trial.status !== 0)
    throw new SetupProblem(`${name} was fetched but does not run: ${trial.stderr.trim()}`)
}

/**
 * Folders with shared libraries, relative to `root`; some packages keep theirs one level below the usual
 * place.
 */
function libraryFolders(root: string, depth: number, under = ""): string[] {
  const entries = readdirSync(join(root, under), { withFileTypes: true })
  const here = entries.some((entry) => /^lib.+\.so\.\d/.test(entry.name)) ? [under] : []
  if (depth === 0) return here
  const folders = entries.filter(
    (entry) => entry.isDirectory() && (under !== "" || /^(usr|lib)/.test(entry.name)),
  )
  return [...here, ...folders.flatMap((entry) => libraryFolders(root, depth - 1, join(under, entry.name)))]
}
