import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { toStillframeError } from "@stillframe/domain/errors"
import { builtinImage } from "@stillframe/hypervisors/images"
import { identifyProcess } from "@stillframe/hypervisors/processes"
import { savesLive, tooOld } from "@stillframe/hypervisors/qemu/live-save"
import {
  probeLiveCapture,
  removeLeftTrials,
  type LiveCaptureProbe,
  type LiveTrial,
} from "@stillframe/hypervisors/qemu/probe-live"
import { userfaultfdObstacle } from "@stillframe/hypervisors/qemu/userfaultfd"
import type { Logger } from "@stillframe/runtime/logger"
import { writeDurably } from "@stillframe/storage/durable"

/** The part of a trial that depends on this host's QEMU. */
type QemuOfHost = Pick<LiveTrial, "binary" | "version" | "machine" | "accel" | "runAs" | "limitMs">

/** A trial's result, kept until the machine boots again or its QEMU is started in another way. */
interface Remembered {
  readonly key: string
  readonly result: LiveCaptureProbe
}

const trialMemoryMib = 64

/**
 * Whether this host can capture VMs live: known from an earlier start, or found out by a trial of some seconds. Never throws: what
 * can't be found out is not offered, with the reason.
 */
export async function liveCaptureOfHost(
  config: { readonly dataDir: string; readonly imagesDir: string },
  qemu: QemuOfHost,
  log: Logger,
): Promise<LiveCaptureProbe> {
  const result = await findOut(config, qemu, log).catch((error: unknown): LiveCaptureProbe => ({
    live_capture: false,
    reason: `it could not be tried: ${toStillframeError(error).message}`,
  }))
  if (result.live_capture) log.info("live capture offered")
  // An old QEMU is nothing that anybody must look after.
  else log[savesLive(qemu.version) ? "warn" : "info"]({ reason: result.reason }, "live capture not offered")
  return result
}

async function findOut(
  { dataDir, imagesDir }: { readonly dataDir: string; readonly imagesDir: string },
  qemu: QemuOfHost,
  log: Logger,
): Promise<LiveCaptureProbe> {
  if (!savesLive(qemu.version)) return { live_capture: false, reason: tooOld(qemu.version) }
  // Asked at each start, and not remembered: a person who puts it right is to see it after a restart.
  const obstacle = await userfaultfdObstacle(qemu.runAs)
  if (obstacle !== undefined) return { live_capture: false, reason: obstacle }
  const file = join(dataDir, "live-capture.json")
  const key = await keyOf(qemu)
  const known = await readRemembered(file)
  if (known?.key === key) return known.result
  await removeLeftTrials(dataDir)
  const { kernel = "" } = builtinImage("heartbeat", imagesDir)
  log.info({ file }, "trying whether a guest is captured live")
  const { signal } = new AbortController()
  const trial = { ...qemu, kernel, memoryMib: trialMemoryMib, dir: dataDir, signal }
  const result = await probeLiveCapture(trial)
  await writeDurably(file, JSON.stringify({ key, result } satisfies Remembered))
  return result
}

async function keyOf({ binary, version, machine, accel, runAs }: QemuOfHost): Promise<string> {
  const self = await identifyProcess(process.pid)
  const user = runAs ?? { uid: process.getuid?.(), gid: process.getgid?.() }
  return JSON.stringify([self?.bootId, binary, version, machine, accel, user.uid, user.gid])
}

/** Undefined too for what can't be read: then it is tried again. */
async function readRemembered(file: string): Promise<Remembered | undefined> {
  try {
    return JSON.parse(await readFile(file, "utf8")) as Remembered
  } catch {
    return undefined
  }
}
