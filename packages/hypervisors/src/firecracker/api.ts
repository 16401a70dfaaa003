import { StillframeError } from "@stillframe/domain/errors"
import { askVmm, membersOf, untrusted } from "../file-vmm/http.ts"
import type { VmState } from "../file-vmm/vm-control.ts"
import type { GuestConfig } from "../launch-config.ts"
import { logHasWhy, refusedGuest } from "../refusal.ts"
import { firecrackerFiles } from "./files.ts"
import { describeInstance, type FirecrackerRequest } from "./requests.ts"
import { parseVersion } from "./version.ts"

/** Firecracker waits 30 s for each vCPU's answer before it gives up itself. */
const deadlineBaseMs = 40_000
/** 16 MiB/s: its save syncs both files before it answers, and whatever else is asked waits for that. */
const deadlineMsPerMib = 64
const faultMax = 500
const noSpace = /No space left on device|Disk quota exceeded/
const noMemory = /Cannot allocate memory/

/** How long any answer of a VM may take: it may be queued behind a save. */
export function deadlineMs({ memoryMib }: Pick<GuestConfig, "memoryMib">): number {
  return deadlineBaseMs + memoryMib * deadlineMsPerMib
}

/**
 * The decoded answer. Throws as `askVmm` does, and `insufficient_storage`, `insufficient_resources` or
 * `hypervisor_failed` with the `fault_message` in `said`.
 */
export async function call<T = undefined>(
  dir: string,
  request: FirecrackerRequest,
  withinMs: number,
): Promise<T> {
  const { status, body } = await askVmm({
    dir,
    socket: firecrackerFiles.socket,
    ...request,
    deadlineMs: withinMs,
  })
  if (status < 200 || status > 299) throw refusal(request, faultMessage(body))
  return (body === "" ? undefined : membersOf({ body })) as T
}

/** The answer of `GET /`. */
export interface InstanceInfo {
  readonly state: "Not started" | "Running" | "Paused"
  readonly vmm_version: string
}

/** The exact version of the process that listens, such as `1.16.1`. */
export async function runningVersion(dir: string, withinMs: number): Promise<string> {
  const { vmm_version } = await call<InstanceInfo>(dir, describeInstance, withinMs)
  if (typeof vmm_version !== "string") throw untrusted("no version")
  return parseVersion(vmm_version).text
}

export async function vmState(dir: string, withinMs: number): Promise<VmState> {
  const { state } = await call<InstanceInfo>(dir, describeInstance, withinMs)
  if (state === "Running") return "running"
  return state === "Paused" ? "paused" : "other"
}

/** After which nothing is known. */
export const isTimeout = (error: unknown): boolean =>
  error instanceof StillframeError && error.code === "timeout"

/** By these, and by nothing else, it judges the guest that it was given. */
const guestRequests = /^\/(machine-config|boot-source|drives\/|actions$)/

function refusal({ method, path }: FirecrackerRequest, said: string): StillframeError {
  if (noSpace.test(said))
    return new StillframeError(
      "insufficient_storage",
      "Firecracker found no space for its output; free some space and try again",
      { said },
    )
  if (noMemory.test(said))
    return new StillframeError(
      "insufficient_resources",
      "the host has no memory for this VM; end another one, or give it less",
      { said },
    )
  const message = `Firecracker refused ${method} ${path}; ${logHasWhy}`
  if (guestRequests.test(path)) return refusedGuest(message, said)
  return new StillframeError("hypervisor_failed", message, { said })
}

function faultMessage(body: string): string {
  return faultIn(body).replaceAll(/\s+/g, " ").trim().slice(0, faultMax)
}

function faultIn(body: string): string {
  try {
    const { fault_message: fault } = JSON.parse(body) as { fault_message?: unknown }
    return typeof fault === "string" ? fault : body
  } catch {
    // Its words are as good without their wrapping.
    return body
  }
}
