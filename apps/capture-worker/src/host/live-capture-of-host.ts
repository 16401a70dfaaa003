import { join } from "node:path"
import { toStillframeError } from "@stillframe/domain/errors"
import { builtinImage } from "@stillframe/hypervisors/images"
import { savesLive, tooOld } from "@stillframe/hypervisors/qemu/capture/live-save"
import {
  probeLiveCapture,
  removeLeftTrials,
  type LiveCaptureProbe,
  type LiveTrial,
} from "@stillframe/hypervisors/qemu/probe/probe-live"
import { userfaultfdObstacle } from "@stillframe/hypervisors/qemu/probe/userfaultfd"
import type { Logger } from "@stillframe/runtime/logger"
import { remembered } from "./remembered.ts"

/** The part of a trial that depends on this host's QEMU. */
type QemuOfHost = Pick<LiveTrial, "binary" | "version" | "machine" | "accel" | "runAs" | "limitMs">

const trialMemoryMib = 64

/**
 * Finds out if this host can capture VMs live: known from an earlier start, or found out by a trial of some
 * seconds. Never throws: what can't be found out is not offered, with the reason.
 */
export async function liveCaptureOfHost(
  config: { readonly dataDir: string; readonly imagesDir: string },
  qemu: QemuOfHost,
  log: Logger,
): Promise<LiveCaptureProbe> {
  const result = await findOut(config, qemu, log).catch((error: unknown): LiveCaptureProbe => {
    const { message, said } = toStillframeError(error)
    return {
      live_capture: false,
      reason: `it could not be tried: ${message}`,
      ...(said !== undefined && { said }),
    }
  })
  if (result.live_capture) log.info("live capture offered")
  // An old QEMU is nothing that anybody must look after.
  else
    log[savesLive(qemu.version) ? "warn" : "info"](
      { reason: result.reason, said: result.said },
      "live capture not offered",
    )
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
  const { binary, version, machine, accel, runAs } = qemu
  // A trial's own user is another one at each start, with the same rights.
  const user = runAs ? [runAs.gid, runAs.confined] : [process.getuid?.(), process.getgid?.()]
  return await remembered(file, [binary, version, machine, accel, ...user], async () => {
    await removeLeftTrials(dataDir)
    const { kernel = "" } = builtinImage("heartbeat", imagesDir)
    log.info({ file }, "trying whether a guest is captured live")
    const { signal } = new AbortController()
    return await probeLiveCapture({ ...qemu, kernel, memoryMib: trialMemoryMib, dir: dataDir, signal })
  })
}
