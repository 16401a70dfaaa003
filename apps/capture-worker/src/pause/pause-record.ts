import { readFile, rm } from "node:fs/promises"
import { uptime } from "node:os"
import { join } from "node:path"
import { growthGraceMs } from "@stillframe/hypervisors/file-vmm/pause-deadline"
import type { HypervisorTools } from "@stillframe/hypervisors/hypervisor"
import type { ProcessIdentity } from "@stillframe/hypervisors/process/processes"
import { syncDir, writeDurably } from "@stillframe/storage/durable"

/**
 * The content of `instances/<id>/pause.json`, from before a VM is paused until it was read back as running.
 * After a crash the host's sweep needs this file and no database.
 */
export interface PauseRecord {
  readonly clusterId: string
  readonly instanceId: string
  readonly generation: number
  readonly hypervisor: HypervisorTools
  /** Absent when it is no operation's: an attached VM is led back to its own files. */
  readonly operationId?: string
  readonly token: string
  /** Absent when the VM is on its way into Standby, or back to its owner's files. */
  readonly snapshotId?: string
  readonly captor: ProcessIdentity
  readonly wasRunning: boolean
  /**
   * For a VM that someone else started. Its process, because the owner may have started another one behind
   * the same socket.
   */
  readonly attached?: { readonly controlSocket: string; readonly process: ProcessIdentity }
  /**
   * Seconds since boot, which no clock can set: after the deadline a captor that reports no growth counts as
   * hung …
   */
  readonly deadlineUptime: number
  /** … and after the limit any. */
  readonly limitUptime: number
}

const fileName = "pause.json"

/** Durable when it resolves. */
export async function writePauseRecord(instanceDir: string, record: PauseRecord): Promise<void> {
  await writeDurably(join(instanceDir, fileName), JSON.stringify(record))
}

/** Undefined when no capture is under way. */
export async function readPauseRecord(instanceDir: string): Promise<PauseRecord | undefined> {
  const text = await readFile(join(instanceDir, fileName), "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT" && error.code !== "ENOTDIR") throw error
  })
  return text === undefined ? undefined : (JSON.parse(text) as PauseRecord)
}

/** Only once the VM was read back as it was before, or its process has ended. */
export async function removePauseRecord(instanceDir: string): Promise<void> {
  await rm(join(instanceDir, fileName), { force: true })
  await syncDir(instanceDir)
}

/** `grownUptime`: when the captor last reported that its save has grown, as far as this process knows. */
export function isOverdue({ deadlineUptime, limitUptime }: PauseRecord, grownUptime = 0): boolean {
  return uptime() > Math.min(limitUptime, Math.max(deadlineUptime, grownUptime + hungSeconds))
}

/** The captor gives its save up by itself after less than this. */
const hungSeconds = growthGraceMs / 1_000 + 5
