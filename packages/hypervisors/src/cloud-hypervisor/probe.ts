import { chown, mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Capabilities } from "@stillframe/domain/capabilities"
import { StillframeError } from "@stillframe/domain/errors"
import { endProcess } from "../process/processes.ts"
import type { VmUser } from "../process/vm-users.ts"
import { startVmm } from "./start-vmm.ts"
import { majorOf } from "./vm-config.ts"

const oldest = 48
const endGraceMs = 2_000

/**
 * Asks a binary what it is by starting it: it listens only where it can have KVM. Throws
 * `hypervisor_unavailable` when it is missing, too old or can't run here.
 */
export async function probe(binary: string, signal: AbortSignal, runAs?: VmUser): Promise<Capabilities> {
  const version = await versionOf(binary, signal, runAs)
  if (!(majorOf(version) >= oldest))
    throw new StillframeError(
      "hypervisor_unavailable",
      `${binary} is cloud-hypervisor ${version}; v${oldest} or later is needed, name one in CLOUD_HYPERVISOR_BINARY`,
    )
  return {
    version,
    kinds: ["Standby", "Stopped"],
    disk_freeze: "reflink",
    attach: false,
    fork: true,
    disk_override: true,
    compressible_memory: true,
    restores: "same_version",
    cancel: false,
    live_capture: false,
    live_capture_reason: "cloud-hypervisor saves only a VM that is paused",
  }
}

async function versionOf(binary: string, signal: AbortSignal, runAs?: VmUser): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "stillframe-probe-"))
  try {
    if (runAs !== undefined) await chown(dir, runAs.uid, runAs.gid)
    let version = ""
    const process = await startVmm({
      dir,
      binary,
      signal,
      ...(runAs !== undefined && { runAs }),
      set: async (found) => {
        version = found
      },
    })
    await endProcess(process, { graceMs: endGraceMs })
    return version
  } catch (error) {
    if (!(error instanceof StillframeError) || error.code === "cancelled") throw error
    if (error.code === "hypervisor_unavailable") throw error
    throw new StillframeError(
      "hypervisor_unavailable",
      `${binary} is not a cloud-hypervisor that runs here; check CLOUD_HYPERVISOR_BINARY and /dev/kvm`,
      { cause: error, said: error.said ?? error.message },
    )
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}
