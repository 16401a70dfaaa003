import { uptime } from "node:os"
import { StillframeError } from "@stillframe/domain/errors"
import { identifyProcess } from "@stillframe/hypervisors/process/processes"
import { instanceDir } from "@stillframe/storage/layout"
import { writeIntent, type PauseIntent } from "../pause/intent.ts"
import type { AttachedInstance } from "./attached-instance.ts"
import type { CaptureOrder, ReleaseOrder, StandbyOrder } from "./orders.ts"

/** The captor's time beyond the pause limit to resume the VM, before the host's sweep kills it. */
const resumeGraceSeconds = 5
/** Into Standby a VM goes when its image is on the device: as long again as its save, at 64 MiB/s. */
const sealMibPerSecond = 64

export type PausingOrder = CaptureOrder | StandbyOrder | ReleaseOrder

/**
 * Leaves word on the device that this process is about to pause the VM, for whoever finds it paused and this
 * process gone.
 */
export async function announcePause(order: PausingOrder, wasRunning: boolean): Promise<void> {
  await writeIntent(instanceDir(order.dataDir, order.instanceId), await intentOf(order, wasRunning))
}

async function intentOf(order: PausingOrder, wasRunning: boolean): Promise<PauseIntent> {
  const captor = await identifyProcess(process.pid)
  if (captor === undefined) throw new StillframeError("internal_error", "/proc does not show this process")
  const { clusterId, instanceId, generation, token } = order
  const attached = attachedIn(order)
  const sealSeconds = order.kind === "standby" ? order.memoryMib / sealMibPerSecond : 0
  const now = uptime() + resumeGraceSeconds + sealSeconds
  return {
    clusterId,
    instanceId,
    generation,
    hypervisor: order.hypervisor,
    ...(order.kind !== "release" && { operationId: order.operationId }),
    token,
    ...(order.kind === "capture" && { snapshotId: order.snapshotId }),
    captor,
    wasRunning,
    ...(attached !== undefined && {
      attached: { controlSocket: attached.controlSocket, process: attached.process },
    }),
    deadlineUptime: now + order.pauseExpectedMs / 1_000,
    limitUptime: now + order.pauseLimitMs / 1_000,
  }
}

function attachedIn(order: PausingOrder): AttachedInstance | undefined {
  if (order.kind === "release") return order.vm
  return order.kind === "capture" && order.source.state === "Attached" ? order.source.vm : undefined
}
