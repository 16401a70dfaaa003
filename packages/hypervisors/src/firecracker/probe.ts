import type { Capabilities } from "@stillframe/domain/capabilities"
import { StillframeError } from "@stillframe/domain/errors"
import { runProgram } from "../process/run-program.ts"
import type { VmUser } from "../process/vm-users.ts"
import { parseVersion } from "./version.ts"

/**
 * Asks a binary what it is. Throws `hypervisor_unavailable` when it is missing, no Firecracker, or one of
 * before 1.12.
 */
export async function probeFirecracker(
  binary: string,
  signal: AbortSignal,
  runAs?: VmUser,
): Promise<Capabilities> {
  const options = { signal, ...(runAs !== undefined && { runAs }) }
  const said = await runProgram(binary, ["--version"], options).catch((error: unknown) => {
    throw error instanceof StillframeError && error.code !== "cancelled"
      ? noFirecracker(binary, error)
      : error
  })
  if (!said.startsWith("Firecracker v")) throw noFirecracker(binary)
  return {
    version: parseVersion(said).text,
    kinds: ["Standby", "Stopped"],
    disk_freeze: "reflink",
    attach: false,
    fork: true,
    disk_override: false,
    compressible_memory: true,
    restores: "same_version",
    cancel: false,
    live_capture: false,
    live_capture_reason: "Firecracker saves paused VMs only",
  }
}

const noFirecracker = (binary: string, cause?: unknown): StillframeError =>
  new StillframeError(
    "hypervisor_unavailable",
    `${binary} is not a working Firecracker; check FIRECRACKER_BINARY`,
    {
      cause,
    },
  )
