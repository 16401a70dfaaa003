import { createReadStream, readFileSync } from "node:fs"
import { mkdir, mkdtemp, rm } from "node:fs/promises"
import { join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { StillframeError, toStillframeError } from "@stillframe/domain/errors"
import { heartbeatGap, heartbeats } from "../heartbeat-log.ts"
import type { LaunchConfig } from "../launch-config.ts"
import { endProcess, type ProcessIdentity } from "../processes.ts"
import { captureQemu } from "./capture.ts"
import { qemuFiles } from "./command.ts"
import { takeIn } from "./layers.ts"
import { savesLive } from "./live-save.ts"
import { startGuest } from "./prepare-launch.ts"
import { launchQemu, type LaunchOptions } from "./process.ts"
import { restoreQemu } from "./restore.ts"

export interface LiveTrial {
  /** Absolute. */
  binary: string
  /** Of the binary, for example `10.0.2`. */
  version: string
  /** An exact type of the binary. */
  machine: string
  accel: LaunchConfig["accel"]
  /** The heartbeat image's kernel. */
  kernel: string
  memoryMib: number
  /** Where a folder for the trial may be made: on a file system like that of the VMs'. */
  dir: string
  /** As every VM of this host: userfaultfd is often root's alone. */
  runAs?: { uid: number; gid: number }
  signal: AbortSignal
}

export interface LiveCaptureProbe {
  live_capture: boolean
  /** Why not, for people. */
  reason?: string
}

/** Some seconds where the processor is emulated. */
const TRIAL_MS = 60_000
const POLL_MS = 10
const TICKS = 3

/**
 * Whether this host's QEMU saves memory truly while its guest runs: captures a guest that counts, restores it, and looks whether both go
 * on by one with their memory unchanged. Takes some seconds, a minute at most; ask once per host, kernel and binary. Never throws but
 * `cancelled`.
 */
export async function probeLiveCapture(trial: LiveTrial): Promise<LiveCaptureProbe> {
  if (!savesLive(trial.version))
    return { live_capture: false, reason: `QEMU ${trial.version} can't save memory while its guest runs` }
  const inTime = AbortSignal.timeout(TRIAL_MS)
  const processes: ProcessIdentity[] = []
  const root = await mkdtemp(join(trial.dir, "live-trial-"))
  try {
    const signal = AbortSignal.any([trial.signal, inTime])
    const reason = await tryLiveCapture({ ...trial, signal }, root, processes)
    return reason === undefined ? { live_capture: true } : { live_capture: false, reason }
  } catch (error) {
    if (trial.signal.aborted)
      throw new StillframeError("cancelled", "the trial of live capture was cancelled", { cause: error })
    const reason = inTime.aborted
      ? `the trial did not end in ${TRIAL_MS / 1000} s`
      : toStillframeError(error).message
    return { live_capture: false, reason }
  } finally {
    for (const identity of processes) await endProcess(identity, { graceMs: 0 })
    await rm(root, { recursive: true, force: true })
  }
}

/** Resolves with what is wrong. */
async function tryLiveCapture(
  trial: LiveTrial,
  root: string,
  processes: ProcessIdentity[],
): Promise<string | undefined> {
  const { signal } = trial
  const source = await placeGuest(trial, join(root, "source"))
  processes.push(await launchQemu(source))
  await startGuest(source.dir)
  await untilTicks(source.dir, TICKS, signal)
  const memoryFile = join(root, "memory")
  const printed = await captureLive(source.dir, memoryFile, signal)
  await untilTicks(source.dir, heartbeats(serial(source.dir)).length + TICKS, signal)
  const copy = await placeGuest(trial, join(root, "copy"))
  processes.push(await restoreQemu({ ...copy, memory: createReadStream(memoryFile) }))
  await startGuest(copy.dir)
  await untilTicks(copy.dir, TICKS, signal)
  const inSource = heartbeatGap(serial(source.dir))
  if (inSource !== undefined) return `the captured guest did not go on as it was: ${inSource}`
  const inCopy = heartbeatGap(printed + serial(copy.dir))
  return inCopy && `the restored guest did not go on where it was captured: ${inCopy}`
}

async function placeGuest(trial: LiveTrial, dir: string): Promise<LaunchOptions> {
  const { machine, accel, kernel, memoryMib, binary, signal, runAs } = trial
  await mkdir(dir)
  await takeIn(kernel, dir, qemuFiles.kernel)
  const cpu = accel === "kvm" ? "host" : "qemu64"
  const config: LaunchConfig = { machine, accel, cpu, memoryMib, vcpus: 1, kernel, disks: [] }
  const launch = { dir, binary, config, disks: [], identity: "stillframe-live-trial", signal }
  return runAs === undefined ? launch : { ...launch, runAs }
}

/** Resolves with what the guest had printed when it stood still. */
async function captureLive(dir: string, memoryFile: string, signal: AbortSignal): Promise<string> {
  let printed = ""
  const limits = { pauseExpectedMs: TRIAL_MS, pauseLimitMs: TRIAL_MS }
  await captureQemu({
    ...limits,
    dir,
    memoryFile,
    // Never run: there are no disks.
    qemuImg: "qemu-img",
    mode: "live",
    beforePause: () => {},
    onPaused: () => void (printed = serial(dir)),
    signal,
  })
  return printed
}

async function untilTicks(dir: string, count: number, signal: AbortSignal): Promise<void> {
  while (heartbeats(serial(dir)).length < count) await delay(POLL_MS, undefined, { signal })
}

const serial = (dir: string): string => readFileSync(join(dir, qemuFiles.serial), "latin1")
