import { readFile, readlink } from "node:fs/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { resolveHostPath, type HostPathRules } from "../../disks/host-paths.ts"
import { checkLaunchConfig, type LaunchConfig } from "../../launch-config.ts"
import type { Monitor } from "../monitor/qmp.ts"
import { hasMachine } from "../probe/probe.ts"
import { unnamedDevice } from "./devices.ts"
import { parseCommandLine, type ParsedCommandLine } from "./parse-command-line.ts"

/**
 * The command line as a launch form, with real paths, if it can be one on this host and says all that runs.
 */
export async function launchForm(
  monitor: Monitor,
  pid: number,
  { rules, launcher }: { rules: HostPathRules; launcher: string | undefined },
): Promise<ParsedCommandLine> {
  const argv = (await readFile(`/proc/${pid}/cmdline`, "utf8")).split("\0").slice(1, -1)
  const machine = await monitor.execute<string>("qom-get", { path: "/machine", property: "type" })
  const parsed = parseCommandLine(argv, {
    cwd: await readlink(`/proc/${pid}/cwd`),
    machine: machine.replace(/-machine$/, ""),
    accel: (await monitor.execute<{ enabled: boolean }>("query-kvm")).enabled ? "kvm" : "tcg",
  })
  if (!parsed.restorable) return parsed
  const unnamed = await unnamedDevice(monitor, parsed.devices)
  if (unnamed !== undefined) return { restorable: false, option: unnamed }
  return await onLauncher(await onThisHost(parsed, rules), launcher)
}

/** A machine type that the host's own QEMU does not have would only be missed by the first restore. */
async function onLauncher(
  launch: ParsedCommandLine,
  launcher: string | undefined,
): Promise<ParsedCommandLine> {
  if (launcher === undefined || !launch.restorable) return launch
  const { machine } = launch.config
  if (await hasMachine(launcher, machine, new AbortController().signal)) return launch
  return {
    restorable: false,
    option: `the machine type ${machine}, which the host's QEMU_BINARY does not have`,
  }
}

async function onThisHost(
  parsed: Extract<ParsedCommandLine, { restorable: true }>,
  rules: HostPathRules,
): Promise<ParsedCommandLine> {
  const config: LaunchConfig = { ...parsed.config, disks: [] }
  for (const member of ["kernel", "initrd"] as const) {
    const path = parsed.config[member]
    if (path === undefined) continue
    try {
      config[member] = await resolveHostPath(path, rules)
    } catch (error) {
      if (!(error instanceof StillframeError)) throw error
      return { restorable: false, option: `-${member}: ${error.message}` }
    }
  }
  for (const disk of parsed.config.disks)
    config.disks.push({ ...disk, path: await resolveHostPath(disk.path, rules) })
  try {
    checkLaunchConfig(config)
  } catch (error) {
    if (!(error instanceof StillframeError)) throw error
    return { restorable: false, option: error.message }
  }
  return { ...parsed, config }
}
