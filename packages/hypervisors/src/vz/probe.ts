import type { Capabilities } from "@stillframe/domain/capabilities"
import { StillframeError } from "@stillframe/domain/errors"
import { runProgram } from "../process/run-program.ts"
import { assertVzRuns, type VzHost } from "./host.ts"

/**
 * Throws `hypervisor_unavailable` where the host is no Mac that can save machines, or the binary is no shim.
 */
export async function probeVz(host: VzHost, binary: string, signal: AbortSignal): Promise<Capabilities> {
  assertVzRuns(host)
  if (!(await isShim(binary, signal)))
    throw new StillframeError(
      "hypervisor_unavailable",
      `${binary} is not a vz shim that can be executed; check VZ_SHIM_BINARY`,
    )
  return {
    version: host.release,
    kinds: ["Standby", "Stopped"],
    disk_freeze: "reflink",
    attach: false,
    fork: true,
    disk_override: true,
    compressible_memory: false,
    compressible_memory_reason:
      "Virtualization.framework encrypts what it saves, memory and devices in one file, and that gets no smaller",
    // Whether a later system still loads a state only the framework can say; that it is the same Mac,
    // `restore` sees to.
    restores: "same_machine",
    cancel: false,
    live_capture: false,
    live_capture_reason: "Virtualization.framework saves paused machines only",
  }
}

/**
 * It can't be asked for a version; what it says without its one option is all that tells it from other
 * programs.
 */
async function isShim(binary: string, signal: AbortSignal): Promise<boolean> {
  const complaint = await runProgram(binary, [], { signal }).catch((error: unknown) => {
    if (!(error instanceof StillframeError) || error.code === "cancelled") throw error
    return error.said ?? ""
  })
  return complaint.includes("-config is required")
}
