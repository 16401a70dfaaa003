import { resolve } from "node:path"
import type { LaunchConfig } from "../../launch-config.ts"
import { allowOnly, Inexpressible, parseOptionString, shown } from "./option-string.ts"
import { parseDisks, type DiskArguments } from "./parse-disks.ts"

export type ParsedCommandLine =
  /** `devices` has the QOM types that the command line makes. */
  | { restorable: true; config: LaunchConfig; devices: string[] }
  /** The first thing that the launch form cannot say, for a person. */
  | { restorable: false; option: string }

/** QEMU's own answers, which count more than its command line: that may contain an alias. */
export interface RunningMachine {
  cwd: string
  /** Exact, from `qom-get /machine type`, without its `-machine`. */
  machine: string
  accel: LaunchConfig["accel"]
}

interface Arguments {
  single: Map<string, string>
  disks: DiskArguments
  serials: number
  nodefaults: boolean
}

/** Options without an argument that change nothing for the guest. */
const dropped: ReadonlySet<string> = new Set([
  "no-user-config",
  "daemonize",
  "S",
  "nographic",
  "no-reboot",
  "no-shutdown",
])
/** Options with an argument that change nothing for the guest. */
const droppedWithArgument: ReadonlySet<string> = new Set([
  "name",
  "display",
  "monitor",
  "qmp",
  "qmp-pretty",
  "mon",
  "chardev",
  "sandbox",
  "pidfile",
  "runas",
  "D",
  "d",
  "L",
  "msg",
  "incoming",
])
const onlyNone: ReadonlySet<string> = new Set(["vga", "net", "nic", "parallel"])
const single: ReadonlySet<string> = new Set([
  "machine",
  "accel",
  "cpu",
  "m",
  "smp",
  "kernel",
  "initrd",
  "append",
])
const aliases: Readonly<Record<string, string>> = { M: "machine" }
const disks: Readonly<Record<string, keyof DiskArguments>> = {
  drive: "drives",
  blockdev: "blockdevs",
  device: "devices",
}
const cpuModel = /^(qemu64|max|host)$/
const DEFAULT_MEMORY = "128"
const MIB_PER: Readonly<Record<string, number>> = { "": 1, M: 1, G: 1024, T: 1024 ** 2 }

/**
 * Reads a running QEMU's arguments (without the program) as a launch form. Only what is on a list of options
 * and says the same there is let through; ranges and paths are still to be checked. The arguments are never
 * used to start anything.
 */
export function parseCommandLine(argv: readonly string[], running: RunningMachine): ParsedCommandLine {
  try {
    const found = sort(argv)
    if (!found.nodefaults) throw new Inexpressible("QEMU's default devices, for want of -nodefaults")
    if (found.serials > 1) throw new Inexpressible("-serial, given twice")
    const { disks, devices } = parseDisks(found.disks, running.cwd, running.machine === "microvm")
    return { restorable: true, config: { ...formOf(found.single, running), disks }, devices }
  } catch (error) {
    if (error instanceof Inexpressible) return { restorable: false, option: error.option }
    // A JSON argument that QEMU itself would not have taken.
    if (error instanceof SyntaxError) return { restorable: false, option: "an argument that is not JSON" }
    throw error
  }
}

function sort(argv: readonly string[]): Arguments {
  const found: Arguments = {
    single: new Map(),
    disks: { drives: [], blockdevs: [], devices: [] },
    serials: 0,
    nodefaults: false,
  }
  for (let at = 0; at < argv.length; at++) {
    const word = argv[at] ?? ""
    // QEMU takes two dashes like one.
    const written = /^--?(\w[\w-]*)$/.exec(word)?.[1]
    if (written === undefined) throw new Inexpressible(`the argument "${shown(word)}"`)
    const option = Object.hasOwn(aliases, written) ? (aliases[written] ?? written) : written
    if (option === "nodefaults") found.nodefaults = true
    else if (option === "enable-kvm") setSingle(found, "accel", "kvm")
    else if (!dropped.has(option)) take(found, option, argv[++at])
  }
  return found
}

function take(found: Arguments, option: string, value: string | undefined): void {
  const kind = Object.hasOwn(disks, option) ? disks[option] : undefined
  const known =
    kind !== undefined ||
    single.has(option) ||
    droppedWithArgument.has(option) ||
    onlyNone.has(option) ||
    option === "serial"
  if (!known) throw new Inexpressible(`-${shown(option)}`)
  if (value === undefined) throw new Inexpressible(`-${option} without its argument`)
  if (kind !== undefined) found.disks[kind].push(value)
  else if (single.has(option)) setSingle(found, option, value)
  else if (onlyNone.has(option) && value !== "none") throw new Inexpressible(`-${option} ${shown(value)}`)
  else if (option === "serial" && value !== "none") found.serials++
}

function setSingle(found: Arguments, option: string, value: string): void {
  if (found.single.has(option)) throw new Inexpressible(`-${option}, given twice`)
  found.single.set(option, value)
}

function formOf(given: ReadonlyMap<string, string>, running: RunningMachine): Omit<LaunchConfig, "disks"> {
  allowOnly("-machine", members(given, "machine", "type"), {
    type: /^/,
    accel: /^(kvm|tcg)(:(kvm|tcg))*$/,
  })
  allowOnly("-accel", members(given, "accel", "accel"), { accel: /^(kvm|tcg)$/, thread: /^(single|multi)$/ })
  const cpu = given.get("cpu") ?? "qemu64"
  if (!cpuModel.test(cpu)) throw new Inexpressible(`-cpu ${shown(cpu)}`)
  const [kernel, initrd, cmdline] = ["kernel", "initrd", "append"].map((option) => given.get(option))
  return {
    machine: running.machine,
    accel: running.accel,
    cpu: cpu as LaunchConfig["cpu"],
    memoryMib: memoryMib(members(given, "m", "size")),
    vcpus: vcpus(members(given, "smp", "cpus")),
    ...(kernel !== undefined && { kernel: resolve(running.cwd, kernel) }),
    ...(initrd !== undefined && { initrd: resolve(running.cwd, initrd) }),
    ...(cmdline !== undefined && { cmdline }),
  }
}

function members(given: ReadonlyMap<string, string>, option: string, implied: string): Map<string, string> {
  const text = given.get(option)
  return text === undefined ? new Map() : parseOptionString(`-${option}`, text, implied)
}

function memoryMib(given: ReadonlyMap<string, string>): number {
  allowOnly("-m", given, { size: /^[1-9]\d{0,8}[MGT]?$/i })
  const text = given.get("size") ?? DEFAULT_MEMORY
  const unit = text.replace(/^\d+/, "").toUpperCase()
  return Number.parseInt(text, 10) * (MIB_PER[unit] ?? 1)
}

function vcpus(given: ReadonlyMap<string, string>): number {
  allowOnly("-smp", given, { cpus: /^[1-9]\d{0,4}$/ })
  return Number(given.get("cpus") ?? "1")
}
