import { uptime } from "node:os"
import { StillframeError } from "@stillframe/domain/errors"
import { identifyProcess } from "@stillframe/hypervisors/process/processes"
import { instanceDir } from "@stillframe/storage/layout"
import {
  readPauseRecord,
  removePauseRecord,
  writePauseRecord,
  type PauseRecord,
} from "../pause/pause-record.ts"
import { leaveAsFound } from "../pause/takeover.ts"
import type { AttachedInstance } from "./attached-instance.ts"
import type { CaptureOrder, ReleaseOrder, StandbyOrder } from "./orders.ts"

/** The captor's time beyond the pause limit to resume the VM by itself, before the host's sweep kills it. */
const resumeGraceSeconds = 5
/** A VM stays paused on its way into Standby while its image is sealed, which takes about this long. */
const sealMibPerSecond = 64

type PausingOrder = CaptureOrder | StandbyOrder | ReleaseOrder

/** Both ends of one pause. Work that pauses a VM twice calls each twice. */
export interface PauseHooks {
  /** Right before the pausing command. The record is on the device when this resolves. */
  readonly begin: (vm: { readonly wasRunning: boolean }) => Promise<void>
  /**
   * The VM was read back as it was before, and long work follows: the record goes now and not after the work.
   */
  readonly end: () => Promise<void>
}

/**
 * Runs work that pauses the VM, and keeps a record of each pause on the device until the VM is as it was
 * before. When the work fails in a pause, this process ends the pause; when that fails too, the record stays
 * for the host's sweep.
 */
export async function withPauseRecord<T>(
  order: PausingOrder,
  work: (pause: PauseHooks) => Promise<T>,
): Promise<T> {
  const { dataDir, instanceId } = order
  const home = instanceDir(dataDir, instanceId)
  const end = (): Promise<void> => removePauseRecord(home)
  try {
    const result = await work({
      begin: async ({ wasRunning }) => writePauseRecord(home, await recordOf(order, wasRunning)),
      end,
    })
    await end()
    return result
  } catch (error) {
    const record = await readPauseRecord(home)
    if (record !== undefined) await leaveAsFound(dataDir, record)
    throw error
  }
}

async function recordOf(order: PausingOrder, wasRunning: boolean): Promise<PauseRecord> {
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
