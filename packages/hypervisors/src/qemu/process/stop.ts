import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { endProcess, processAlive, type ProcessIdentity } from "../../process/processes.ts"
import { withMonitor } from "../monitor/qmp.ts"
import type { VmStatus } from "../monitor/resume.ts"
import { qemuFiles } from "./command.ts"

const POLL_MS = 20

/**
 * Ends a VM: its guest is asked first (ACPI's power button), and after `guestMs`, or at once if it stands
 * still, the process is, which writes out what the guest has written; after `processMs` more it is killed.
 * Resolves when the process is gone.
 */
export async function stopQemu(
  dir: string,
  vm: ProcessIdentity,
  { guestMs, processMs, signal }: { guestMs: number; processMs: number; signal: AbortSignal },
): Promise<void> {
  try {
    const hears = await withMonitor(dir, qemuFiles.command, async (monitor) => {
      await monitor.execute("system_powerdown")
      return (await monitor.execute<VmStatus>("query-status")).running
    })
    for (
      const end = performance.now() + (hears ? guestMs : 0);
      performance.now() < end;
      await delay(POLL_MS)
    ) {
      if (!(await processAlive(vm))) return
      if (signal.aborted) throw new StillframeError("cancelled", "the stop was cancelled")
    }
  } catch (error) {
    // A monitor that does not answer is no reason to let the VM run on.
    if (!(error instanceof StillframeError) || error.code === "cancelled") throw error
  }
  await endProcess(vm, { graceMs: processMs })
}
