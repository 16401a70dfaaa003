import { createHash } from "node:crypto"
import { release } from "node:os"
import { StillframeError } from "@stillframe/domain/errors"
import { runProgram } from "../process/run-program.ts"

/** The facts that decide if Virtualization.framework can save and load machines here. */
export interface VzHost {
  readonly platform: NodeJS.Platform
  readonly arch: string
  /** The version of the kernel. */
  readonly release: string
  /** The Mac itself, whatever is installed on it. */
  hardwareUuid(signal: AbortSignal): Promise<string>
}

export const thisHost: VzHost = {
  platform: process.platform,
  arch: process.arch,
  release: release(),
  hardwareUuid,
}

/** macOS 14, the first whose framework saves the state of a machine (`saveMachineStateTo`), has Darwin 23. */
const darwinMin = 23

/** Throws `hypervisor_unavailable` wherever the host is not macOS 14 or later on Apple silicon. */
export function assertVzRuns({ platform, arch, release }: VzHost): void {
  const darwin = Number.parseInt(release, 10)
  if (platform === "darwin" && arch === "arm64" && darwin >= darwinMin) return
  throw new StillframeError(
    "hypervisor_unavailable",
    `vz needs macOS 14 or later on Apple silicon, and this host is ${platform} ${release} on ${arch}; use another hypervisor here`,
  )
}

/** Tells hosts apart without giving their hardware's number away. */
export async function hostIdentity(host: VzHost, signal: AbortSignal): Promise<string> {
  const uuid = await host.hardwareUuid(signal)
  return createHash("sha256").update(`stillframe vz host ${uuid}`).digest("hex").slice(0, 32)
}

async function hardwareUuid(signal: AbortSignal): Promise<string> {
  const said = await runProgram("/usr/sbin/ioreg", ["-rd1", "-c", "IOPlatformExpertDevice"], { signal })
  const uuid = /"IOPlatformUUID" = "([^"]+)"/.exec(said)?.[1]
  if (uuid === undefined)
    throw new StillframeError(
      "hypervisor_unavailable",
      "ioreg does not tell this Mac's IOPlatformUUID, to which saved machines are bound; see what it prints",
    )
  return uuid
}
