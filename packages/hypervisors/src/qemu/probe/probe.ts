import { spawn } from "node:child_process"
import { chown, copyFile, mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { childEnv } from "@stillframe/domain/child-env"
import { StillframeError } from "@stillframe/domain/errors"
import { bootFiles } from "../../boot-names.ts"
import { sealCopy } from "../../files/seal-copy.ts"
import type { LaunchConfig, MachineTypes } from "../../launch-config.ts"
import { confine, type Confined } from "../../process/confine.ts"
import { runProgram } from "../../process/run-program.ts"
import type { VmUser } from "../../process/vm-users.ts"

/** The QEMU of a host. Probe it once per host and binary. */
export interface QemuProbe {
  /** For example `7.2.22`. */
  version: string
  machines: MachineTypes
}

/** A guest that proves an accelerator: it must print `marker` on its serial console in time. */
export interface TrialGuest {
  kernel: string
  initrd?: string
  cmdline?: string
  memoryMib: number
  marker: string
}

/** With KVM a small guest boots in one or two seconds. */
const TRIAL_TIMEOUT_MS = 10_000
const TRIAL_OUTPUT_BYTES_MAX = 1024 * 1024

/** Asks a binary what it is. Throws `hypervisor_unavailable` when it is missing or no QEMU for x86-64 PCs. */
export async function probeQemu(binary: string, signal: AbortSignal): Promise<QemuProbe> {
  try {
    const version = /version (\d+\.\d+\.\d+)/.exec(await runProgram(binary, ["--version"], { signal }))?.[1]
    const machines = parseMachines(await runProgram(binary, ["-machine", "help"], { signal }))
    if (version !== undefined && machines !== undefined) return { version, machines }
  } catch (error) {
    if (!(error instanceof StillframeError) || error.code !== "hypervisor_failed") throw error
    throw noQemu(binary, error)
  }
  throw noQemu(binary)
}

/** True when a binary has exactly this machine type. Throws as `runProgram` does. */
export async function hasMachine(binary: string, machine: string, signal: AbortSignal): Promise<boolean> {
  const help = await runProgram(binary, ["-machine", "help"], { signal })
  return help.split("\n").some((line) => line.split(" ", 1)[0] === machine)
}

/**
 * The numbered types in the output of `-machine help`, and the newest of each family. Not what the aliases
 * `q35` and `pc` stand for: some distributions name a type of their own there (`pc-q35-jammy`), which no
 * other QEMU could restore.
 */
export function parseMachines(help: string): MachineTypes | undefined {
  const known = [...help.matchAll(/^(pc-(?:q35|i440fx)-\d+\.\d+)\s/gm)].map(([, name = ""]) => name)
  const [q35, pc] = [newest(known, "pc-q35-"), newest(known, "pc-i440fx-")]
  return q35 === undefined || pc === undefined ? undefined : { q35, pc, known }
}

function newest(known: readonly string[], family: string): string | undefined {
  const numbers = (name: string): number[] => name.slice(family.length).split(".").map(Number)
  return known
    .filter((name) => name.startsWith(family))
    .toSorted((one, other) => {
      const [[a = 0, b = 0], [c = 0, d = 0]] = [numbers(one), numbers(other)]
      return a - c || b - d
    })
    .at(-1)
}

/**
 * Tests if KVM really runs guests here, by booting one: a `/dev/kvm` that opens proves nothing where it is
 * emulated itself. `tcg` when the trial does not get to its marker, for whatever reason.
 */
export async function probeAccel(
  binary: string,
  machine: string,
  guest: TrialGuest,
  signal: AbortSignal,
  runAs?: VmUser,
): Promise<LaunchConfig["accel"]> {
  const dir = await mkdtemp(join(tmpdir(), "stillframe-probe-"))
  try {
    // A guest without its files boots as little as one that KVM does not run.
    const files = await layTrial(guest, dir).catch(() => undefined)
    if (files === undefined) return "tcg"
    if (runAs !== undefined) await chown(dir, runAs.uid, runAs.gid)
    return await boots(confine(binary, trialArguments(machine, { ...guest, ...files }), runAs), {
      dir,
      marker: guest.marker,
      signal,
    })
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}

/** In a directory of the trial's own: those of the images are for root to walk. */
async function layTrial(
  { kernel, initrd }: TrialGuest,
  dir: string,
): Promise<Pick<TrialGuest, "kernel" | "initrd">> {
  const lay = async (from: string, name: string): Promise<string> => {
    await copyFile(from, join(dir, name))
    await sealCopy(join(dir, name))
    return name
  }
  return {
    kernel: await lay(kernel, bootFiles.kernel),
    ...(initrd !== undefined && { initrd: await lay(initrd, bootFiles.initrd) }),
  }
}

function trialArguments(machine: string, guest: TrialGuest): string[] {
  return [
    ["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"],
    [
      "-machine",
      `${machine},accel=kvm`,
      "-cpu",
      "host",
      "-m",
      `${guest.memoryMib}M`,
      "-kernel",
      guest.kernel,
    ],
    guest.initrd === undefined ? [] : ["-initrd", guest.initrd],
    guest.cmdline === undefined ? [] : ["-append", guest.cmdline],
  ].flat()
}

async function boots(
  { program, args, user }: Confined,
  { dir, marker, signal }: { dir: string; marker: string; signal: AbortSignal },
): Promise<LaunchConfig["accel"]> {
  const child = spawn(program, [...args], {
    cwd: dir,
    env: childEnv(),
    ...user,
    stdio: ["ignore", "pipe", "pipe"],
    timeout: TRIAL_TIMEOUT_MS,
    killSignal: "SIGKILL",
  })
  const { promise, resolve } = Promise.withResolvers<LaunchConfig["accel"]>()
  let output = ""
  child.stdout.setEncoding("latin1").on("data", (text: string) => {
    output = (output + text).slice(-TRIAL_OUTPUT_BYTES_MAX)
    if (output.includes(marker)) resolve("kvm")
  })
  child.stderr.setEncoding("latin1").on("data", (text: string) => {
    // A guest that the emulated KVM can't run is stopped, not ended: QEMU says so and waits.
    if (text.includes("KVM internal error")) resolve("tcg")
  })
  child.once("error", () => resolve("tcg"))
  child.once("close", () => resolve("tcg"))
  const onAbort = (): void => resolve("tcg")
  signal.addEventListener("abort", onAbort, { once: true })
  try {
    return await promise
  } finally {
    signal.removeEventListener("abort", onAbort)
    child.kill("SIGKILL")
  }
}

const noQemu = (binary: string, cause?: unknown): StillframeError =>
  new StillframeError(
    "hypervisor_unavailable",
    `${binary} is not a working QEMU for x86-64 PCs; check QEMU_BINARY`,
    { cause },
  )
