import { rm } from "node:fs/promises"
import { uptime } from "node:os"
import { StillframeError } from "@stillframe/domain/errors"
import type { HypervisorTools } from "@stillframe/hypervisors/hypervisor"
import { attachedVms, hypervisorOf } from "@stillframe/hypervisors/hypervisor-of"
import { endProcess, processAlive } from "@stillframe/hypervisors/process/processes"
import { generationDir, instanceDir, standbyDir } from "@stillframe/storage/layout"
import { isOverdue, readPauseRecord, removePauseRecord, type PauseRecord } from "./pause-record.ts"
import { holdVmLock } from "./vm-lock.ts"

const lockWaitMs = 2_000

/** By instance, when its captor last reported that the save has grown: seconds since boot. */
export type Growth = Map<string, number>

/** Takes a save's progress, and notes when it is more than before. */
export function growthOf(grown: Growth, instanceId: string): (progress: number) => void {
  let most = 0
  return (progress) => {
    if (progress > most) grown.set(instanceId, uptime())
    most = Math.max(most, progress)
  }
}

/**
 * `none`: no capture was under way. `alive`: its captor lives and is in time. `gone`: the VM's process has
 * ended.
 */
export type Takeover = "none" | "alive" | "resumed" | "gone"

/**
 * Makes a VM run again whose captor has died, or has hung past its deadline and is killed here. Needs nothing
 * but this host: no database, no queue. The order proves that nothing of the dead captor can still act: its
 * process is gone, the lock that the kernel held for it is ours, and the monitor's greeting says that its
 * connection is closed.
 */
export async function takeOver(dataDir: string, instanceId: string, grown?: Growth): Promise<Takeover> {
  const dir = instanceDir(dataDir, instanceId)
  const found = await readPauseRecord(dir)
  if (found === undefined) return "none"
  if (await processAlive(found.captor)) {
    if (!isOverdue(found, grown?.get(instanceId))) return "alive"
    await endProcess(found.captor, { graceMs: 0 })
  }
  await using _lock = await holdVmLock(found, lockWaitMs)
  // Another process of this host may have been first, and the VM may be somebody's again.
  const record = await readPauseRecord(dir)
  if (record === undefined || record.token !== found.token) return "none"
  return await leaveAsFound(dataDir, record)
}

/**
 * Lets a VM go on whose row says that it runs: it was loaded, and its worker may have died before it said so
 * to the VM.
 */
export async function resumeVm(
  dataDir: string,
  vm: { clusterId: string; instanceId: string; generation: number; hypervisor: HypervisorTools },
): Promise<void> {
  await using _lock = await holdVmLock(vm, lockWaitMs)
  await (await hypervisorOf(vm.hypervisor)).begin(generationDir(dataDir, vm.instanceId, vm.generation))
}

/**
 * Ends what a capture began, puts the VM back into the state it was in before, and then removes the record.
 */
export async function leaveAsFound(dataDir: string, record: PauseRecord): Promise<"resumed" | "gone"> {
  const outcome = await endPause(dataDir, record)
  await removePauseRecord(instanceDir(dataDir, record.instanceId))
  return outcome
}

async function endPause(dataDir: string, record: PauseRecord): Promise<"resumed" | "gone"> {
  const { attached } = record
  const dir = generationDir(dataDir, record.instanceId, record.generation)
  try {
    if (attached !== undefined)
      await (await attachedVms()).of(attached).settle(instanceDir(dataDir, record.instanceId), record)
    else
      await (
        await hypervisorOf(record.hypervisor)
      ).settle(dir, {
        wasRunning: record.wasRunning,
        // Payloads are named after the token of the operation that makes them.
        payload: record.token,
        async onPresent() {
          // Once the guest goes on, the image it was to be put away in is of another moment.
          if (record.snapshotId === undefined)
            await rm(standbyDir(dataDir, record.instanceId), { recursive: true, force: true })
        },
      })
    return "resumed"
  } catch (error) {
    if (error instanceof StillframeError && error.code === "hypervisor_gone") return "gone"
    throw error
  }
}
