import { uptime } from "node:os"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { identifyProcess } from "@stillframe/hypervisors/processes"
import { captureQemu, type Capture } from "@stillframe/hypervisors/qemu-capture"
import { generationDir, instanceDir, rawMemoryName } from "@stillframe/storage/layout"
import { readIntent, removeIntent, writeIntent, type PauseIntent } from "./intent.ts"
import type { CaptureOrder, StandbyOrder } from "./orders.ts"
import { leaveAsFound } from "./takeover.ts"

/** Less than this left of the lease, and the VM is not paused any more. */
const leaseLeftMinMs = 10_000
/** What the captor has beyond the pause limit to resume the VM by itself, before the host's sweep kills it. */
const resumeGraceSeconds = 5
/** Into Standby a VM goes when its image is on the device: as long again as its save, at 64 MiB/s. */
const sealMibPerSecond = 64

export interface Captor {
  readonly signal: AbortSignal
  /** From 0 to 1. */
  readonly report: (progress: number) => void
  readonly leaseRemainingMs: () => number
}

/** Saves a running VM's memory into `dir`; it runs again when this resolves, and when it fails. */
export async function saveVm(order: CaptureOrder, captor: Captor, dir: string): Promise<Capture> {
  return withIntentRemoved(order, () => capture(order, captor, { dir, keepPaused: false }))
}

/**
 * Saves a running VM's memory into `dir` and keeps it paused for `work`, which is to end it. When that fails the VM is put
 * back as it was found, by this process or by whoever comes after it.
 */
export async function saveVmAndEnd<T>(
  order: StandbyOrder,
  captor: Captor,
  { dir, work }: { dir: string; work: (captured: Capture) => Promise<T> },
): Promise<T> {
  return withIntentRemoved(order, async () => work(await capture(order, captor, { dir, keepPaused: true })))
}

async function withIntentRemoved<T>(order: CaptureOrder | StandbyOrder, work: () => Promise<T>): Promise<T> {
  const home = instanceDir(order.dataDir, order.instanceId)
  try {
    const result = await work()
    await removeIntent(home)
    return result
  } catch (error) {
    const intent = await readIntent(home)
    if (intent !== undefined) {
      // Whatever went wrong, this process leaves the VM as it found it, or leaves the intent for the host's sweep.
      await leaveAsFound(order.dataDir, intent)
      await removeIntent(home)
    }
    throw error
  }
}

function capture(
  order: CaptureOrder | StandbyOrder,
  captor: Captor,
  { dir, keepPaused }: { dir: string; keepPaused: boolean },
): Promise<Capture> {
  return captureQemu({
    dir: generationDir(order.dataDir, order.instanceId, order.generation),
    memoryFile: join(dir, rawMemoryName),
    qemuImg: order.qemu.qemuImg,
    keepPaused,
    pauseExpectedMs: order.pauseExpectedMs,
    pauseLimitMs: order.pauseLimitMs,
    signal: captor.signal,
    onProgress: (bytes) => captor.report(Math.min(1, bytes / (order.launch.memoryMib * 1024 ** 2))),
    beforePause: async ({ wasRunning }) => {
      await writeIntent(instanceDir(order.dataDir, order.instanceId), await intentOf(order, wasRunning))
      if (captor.leaseRemainingMs() < leaseLeftMinMs)
        throw new StillframeError("lease_lost", "too little is left of the lease to pause the VM")
    },
  })
}

async function intentOf(order: CaptureOrder | StandbyOrder, wasRunning: boolean): Promise<PauseIntent> {
  const captor = await identifyProcess(process.pid)
  if (captor === undefined) throw new StillframeError("internal_error", "/proc does not show this process")
  const { clusterId, instanceId, generation, operationId, token } = order
  const sealSeconds = order.kind === "standby" ? order.launch.memoryMib / sealMibPerSecond : 0
  const now = uptime() + resumeGraceSeconds + sealSeconds
  return {
    clusterId,
    instanceId,
    generation,
    operationId,
    token,
    ...(order.kind === "capture" && { snapshotId: order.snapshotId }),
    captor,
    wasRunning,
    deadlineUptime: now + order.pauseExpectedMs / 1_000,
    limitUptime: now + order.pauseLimitMs / 1_000,
  }
}
