import { createReadStream, readFileSync } from "node:fs"
import { copyFile, mkdir, mkdtemp, readdir, rm } from "node:fs/promises"
import { basename, join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { StillframeError, toStillframeError } from "@stillframe/domain/errors"
import { sealCopy } from "../../files/seal-copy.ts"
import { heartbeatGap, heartbeats } from "../../heartbeat-log.ts"
import type { LaunchConfig } from "../../launch-config.ts"
import { processesWith } from "../../process/processes-with.ts"
import { endProcess, type ProcessIdentity } from "../../process/processes.ts"
import type { VmUser } from "../../process/vm-users.ts"
import { captureQemu } from "../capture/capture.ts"
import { savesLive, tooOld } from "../capture/live-save.ts"
import { qemuFiles } from "../process/command.ts"
import { launchQemu, type LaunchOptions } from "../process/launch.ts"
import { startGuest } from "../process/prepare-launch.ts"
import { restoreQemu } from "../process/restore.ts"

export interface LiveTrial {
  /** Absolute. */
  binary: string
  /** The version of the binary, for example `10.0.2`. */
  version: string
  /** An exact type of the binary. */
  machine: string
  accel: LaunchConfig["accel"]
  /** The heartbeat image's kernel. */
  kernel: string
  memoryMib: number
  /** The directory for the trial, on the same kind of file system as the VMs. */
  dir: string
  /** As every VM of this host: userfaultfd is often root's alone. */
  runAs?: VmUser
  /** Given up after so long: unless named, 20 s. */
  limitMs?: number
  signal: AbortSignal
}

export interface LiveCaptureProbe {
  live_capture: boolean
  /** Why not, for people. */
  reason?: string
  /** The words of QEMU or of the system, for the log. */
  said?: string
}

/** Under a second where the processor is emulated and idle. */
const TRIAL_MS = 20_000
const TRIAL_PREFIX = "live-trial-"
const POLL_MS = 10
const TICKS = 3

/**
 * Tests if this host's QEMU saves memory truly while its guest runs: captures a guest that counts, restores
 * it, and looks whether both go on by one with their memory unchanged. Takes a second or two; ask once per
 * host, kernel and binary. Never throws but `cancelled`.
 */
export async function probeLiveCapture(trial: LiveTrial): Promise<LiveCaptureProbe> {
  if (!savesLive(trial.version)) return { live_capture: false, reason: tooOld(trial.version) }
  const limitMs = trial.limitMs ?? TRIAL_MS
  const inTime = AbortSignal.timeout(limitMs)
  const processes: ProcessIdentity[] = []
  const root = await mkdtemp(join(trial.dir, TRIAL_PREFIX))
  try {
    const signal = AbortSignal.any([trial.signal, inTime])
    const reason = await tryLiveCapture({ ...trial, signal }, root, processes)
    return reason === undefined ? { live_capture: true } : { live_capture: false, reason }
  } catch (error) {
    if (trial.signal.aborted)
      throw new StillframeError("cancelled", "the trial of live capture was cancelled", { cause: error })
    if (inTime.aborted) return { live_capture: false, reason: `a trial did not end in ${limitMs / 1000} s` }
    const { message, said } = toStillframeError(error)
    return { live_capture: false, reason: message, ...(said !== undefined && { said }) }
  } finally {
    for (const identity of processes) await endProcess(identity, { graceMs: 0 })
    await rm(root, { recursive: true, force: true })
  }
}

/** Ends and removes what trials in `dir` left whose process was killed. */
export async function removeLeftTrials(dir: string): Promise<void> {
  for (const name of await readdir(dir)) {
    if (!name.startsWith(TRIAL_PREFIX)) continue
    for await (const left of processesWith("cmdline", `guest=${identityIn(name)}`))
      await endProcess(left, { graceMs: 0 })
    await rm(join(dir, name), { recursive: true, force: true })
  }
}

const identityIn = (folder: string): string => `stillframe-${folder}`

/** Resolves with what is wrong. */
async function tryLiveCapture(
  trial: LiveTrial,
  root: string,
  processes: ProcessIdentity[],
): Promise<string | undefined> {
  const { signal } = trial
  const source = await placeGuest(trial, root, "source")
  processes.push(await launchQemu(source))
  await startGuest(source.dir)
  await untilTicks(source.dir, TICKS, signal)
  const memoryFile = join(root, "memory")
  const printed = await captureLive(source.dir, memoryFile, signal)
  await untilTicks(source.dir, heartbeats(serial(source.dir)).length + TICKS, signal)
  const copy = await placeGuest(trial, root, "copy")
  processes.push(await restoreQemu({ ...copy, memory: createReadStream(memoryFile) }))
  await startGuest(copy.dir)
  await untilTicks(copy.dir, TICKS, signal)
  const inSource = heartbeatGap(serial(source.dir))
  if (inSource !== undefined) return `the captured guest did not go on as it was: ${inSource}`
  const inCopy = heartbeatGap(printed + serial(copy.dir))
  return inCopy && `the restored guest did not go on where it was captured: ${inCopy}`
}

async function placeGuest(trial: LiveTrial, root: string, name: string): Promise<LaunchOptions> {
  const { machine, accel, kernel, memoryMib, binary, signal, runAs } = trial
  const dir = join(root, name)
  await mkdir(dir)
  await copyFile(kernel, join(dir, qemuFiles.kernel))
  await sealCopy(join(dir, qemuFiles.kernel))
  const cpu = accel === "kvm" ? "host" : "qemu64"
  const config: LaunchConfig = { machine, accel, cpu, memoryMib, vcpus: 1, kernel, disks: [] }
  const launch = { dir, binary, config, disks: [], identity: identityIn(basename(root)), signal }
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
