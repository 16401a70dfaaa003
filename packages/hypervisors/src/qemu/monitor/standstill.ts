import { StillframeError } from "@stillframe/domain/errors"
import type { Standstill } from "../../watch.ts"
import type { Monitor } from "./qmp.ts"
import type { VmStatus } from "./resume.ts"

/** QAPI's RunState where QEMU has stopped the guest by itself, and the reason for people. */
const reasons: Readonly<Record<string, string>> = {
  "internal-error":
    "QEMU cannot run the guest any further (internal-error): the guest or the host's KVM did something that it does not know; look at qemu.log, then stop the instance and start it again",
  "guest-panicked":
    "the guest's kernel panicked and QEMU keeps it for inspection; stop the instance and start it again",
  watchdog: "the guest's watchdog ran out and QEMU stopped the guest; stop the instance and start it again",
  suspended: "the guest has suspended itself (S3); wake it by its own means, or stop the instance",
  paused: "the VM was paused by another program than this service; resume it by that program",
  postmigrate:
    "the VM's memory was saved while it stood still, and QEMU keeps it stopped (postmigrate); resume it by the program that paused it, or stop the instance",
  prelaunch:
    "the VM has not been let run since it was started (prelaunch); stop the instance and start it again",
  inmigrate:
    "the VM waits for a memory that another program is to load (inmigrate); stop the instance and start it again",
  shutdown: "the guest has shut itself down, and its process stays; stop the instance",
}

/** States between two others: the next look sees what has become of them. */
const passing: ReadonlySet<string> = new Set([
  "running",
  "finish-migrate",
  "save-vm",
  "restore-vm",
  "colo",
  "debug",
])

interface Block {
  readonly device: string
  readonly qdev?: string
  readonly "io-status"?: "ok" | "failed" | "nospace"
}

/** Undefined while the VM runs. Throws as the monitor does. */
export async function standstillOf(monitor: Monitor): Promise<Standstill | undefined> {
  const { status, running } = await monitor.execute<VmStatus>("query-status")
  if (running || passing.has(status)) return undefined
  if (status === "io-error") return { status, reason: await failedWrites(monitor), endsWithWrites: true }
  const reason = reasons[status] ?? `QEMU says that the VM is ${status}; stop the instance and start it again`
  return { status, reason, endsWithWrites: false }
}

/** Lets a VM go on, once: it may stop again at once, which the next look sees. */
export async function letGoOn(monitor: Monitor): Promise<void> {
  try {
    await monitor.execute("cont")
  } catch (error) {
    if (!(error instanceof StillframeError) || error.code !== "hypervisor_failed") throw error
  }
}

/** A quota that is used up reads as any other failure: QEMU tells ENOSPC alone apart. */
async function failedWrites(monitor: Monitor): Promise<string> {
  const blocks = await monitor.execute<Block[]>("query-block")
  const disksThat = (status: Block["io-status"]): string =>
    blocks
      .filter((block) => block["io-status"] === status)
      .map(({ device, qdev }) => /disk\d+/.exec(qdev ?? "")?.[0] ?? (device || "a disk"))
      .join(", ")
  const full = disksThat("nospace")
  if (full !== "")
    return `the host has no room for what the guest writes to ${full}, so QEMU stopped it before it noticed; free space on that file system (for a VM of Stillframe's, of DATA_DIR), ${goesOn}`
  return `the host does not take what the guest writes to ${disksThat("failed") || "a disk"}, so QEMU stopped it before it noticed: a quota is used up, or the disk fails; raise the quota or free space, or look at the host's kernel log, ${goesOn}`
}

const goesOn =
  "and the VM goes on by itself within a minute (an attached one when its owner lets it); if it does not, stop it and start it again"
