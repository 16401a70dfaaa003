import { spawn } from "node:child_process"
import { once } from "node:events"
import { closeSync, mkdirSync, openSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { writeDisks } from "@stillframe/hypervisors/disks/disks"
import { builtinImage } from "@stillframe/hypervisors/images"
import type { DiskConfig, LaunchConfig } from "@stillframe/hypervisors/launch-config"
import { migrationEnd, setUpMigration } from "@stillframe/hypervisors/qemu/capture/migration"
import { openMonitor, withMonitor, type Monitor } from "@stillframe/hypervisors/qemu/monitor/qmp"
import { ensureRunning, type VmStatus } from "@stillframe/hypervisors/qemu/monitor/resume"
import { qemuArguments, qemuFiles } from "@stillframe/hypervisors/qemu/process/command"
import { prepareLaunch } from "@stillframe/hypervisors/qemu/process/prepare-launch"
import { waitForCounts } from "@stillframe/stillframe/console"
import type { Machine } from "./machine.ts"

/** A demo guest that is captured by hand. */
export interface Guest extends AsyncDisposable {
  readonly dir: string
}

const startMsMax = 20_000
const bootMsMax = 120_000
const retryMs = 2

/**
 * Boots the demo image, and waits until it counts. It is started as a launch starts it but without QEMU's
 * sandbox, which forbids the `exec:` of the reference.
 */
export async function startGuest(
  machine: Machine,
  {
    dir,
    imagesDir,
    memoryMib,
    disks,
    inUseMib,
  }: { dir: string; imagesDir: string; memoryMib: number; disks: DiskConfig[]; inUseMib?: number },
): Promise<Guest> {
  mkdirSync(dir)
  const image = builtinImage("demo", imagesDir)
  const config: LaunchConfig = {
    ...image,
    ...(inUseMib !== undefined && { cmdline: `${image.cmdline} random_mib=${inUseMib}` }),
    machine: machine.machines.q35,
    accel: machine.accel,
    cpu: machine.accel === "kvm" ? "host" : "qemu64",
    memoryMib,
    vcpus: 1,
    disks,
  }
  const rules = { hostPaths: [join(imagesDir, "..")], dataDir: dir }
  const { signal } = new AbortController()
  const prepared = await prepareLaunch(config, { dir, qemuImg: machine.qemuImg, signal, rules })
  await writeDisks(dir, prepared)
  const args = qemuArguments({ config, disks: prepared, identity: "bench" })
  args.splice(args.indexOf("-sandbox"), 2)
  const log = openSync(join(dir, qemuFiles.log), "a")
  const child = spawn(machine.binary, args, { cwd: dir, stdio: ["ignore", log, log] })
  closeSync(log)
  const ended = once(child, "exit")
  const guest: Guest = {
    dir,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL")
      await ended
    },
  }
  try {
    const monitor = await monitorWhenReady(dir)
    await ensureRunning(monitor)
    monitor.close()
    await untilCounting(dir)
    return guest
  } catch (error) {
    await guest[Symbol.asyncDispose]()
    throw error
  }
}

/** Resolves when the guest has printed some more lines than it has now. */
export async function untilCounting(dir: string): Promise<void> {
  const log = join(dir, qemuFiles.serial)
  let from: number | undefined
  await waitForCounts(
    log,
    (found) => found.length >= (from ??= found.length) + 3,
    AbortSignal.timeout(bootMsMax),
  )
}

/** Stops a guest that is not being measured, so that it takes no processor from the one that is. */
export async function hold(dir: string): Promise<void> {
  await withMonitor(dir, qemuFiles.command, (monitor) => monitor.execute("stop"))
}

export async function release(dir: string): Promise<void> {
  await withMonitor(dir, qemuFiles.command, ensureRunning)
  await untilCounting(dir)
}

/**
 * Saves the guest's memory as one would by hand. Resolves with the pause: from before `stop` to the state
 * reading as running.
 */
export async function saveByHand(guest: Guest, file: string): Promise<number> {
  return withMonitor(guest.dir, qemuFiles.command, async (monitor) => {
    await setUpMigration(monitor)
    const started = performance.now()
    await monitor.execute("stop")
    const end = migrationEnd(monitor)
    await monitor.execute("migrate", { uri: `exec:cat > ${file}` })
    await end.promise
    end.stop()
    await resume(monitor)
    return performance.now() - started
  })
}

async function resume(monitor: Monitor): Promise<void> {
  for (;;) {
    // Refused for some milliseconds after a save has ended.
    const accepted = await monitor.execute("cont").then(
      () => true,
      () => false,
    )
    if (accepted && (await monitor.execute<VmStatus>("query-status")).running) return
    await delay(retryMs)
  }
}

async function monitorWhenReady(dir: string): Promise<Monitor> {
  for (const end = performance.now() + startMsMax; ; await delay(retryMs)) {
    try {
      return await openMonitor(dir, qemuFiles.command)
    } catch (error) {
      if (performance.now() > end) throw error
    }
  }
}
