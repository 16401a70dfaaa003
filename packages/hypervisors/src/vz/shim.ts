import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { askVmm, type VmmAnswer } from "../file-vmm/http.ts"
import { logHasWhy } from "../refusal.ts"
import { vzFiles } from "./files.ts"

/**
 * The shim of one VM. Every request waits behind the one before it, so each may take as long as a save does.
 */
export interface Shim {
  /** The VM's directory. */
  readonly dir: string
  readonly deadlineMs: number
}

export type ShimCommand = "vm.pause" | "vm.resume" | "vm.snapshot" | "vm.power-button" | "vmm.shutdown"

const pollMs = 20
/** On their way from one state to another, which the framework does by itself. */
const passing: ReadonlySet<string> = new Set([
  "Starting",
  "Pausing",
  "Resuming",
  "Stopping",
  "Saving",
  "Restoring",
])
const full = /no space left|out of disk space|quota exceeded/i
const saidCharactersMax = 500

/**
 * Throws `hypervisor_gone`, `timeout`, and `hypervisor_failed` with what the shim said in `said` where it
 * refuses.
 */
export async function command(shim: Shim, name: ShimCommand, body?: object): Promise<void> {
  const { dir, deadlineMs } = shim
  const answer = await askVmm({
    dir,
    socket: vzFiles.control,
    method: "PUT",
    path: `/api/v1/${name}`,
    ...(body !== undefined && { body }),
    deadlineMs,
  })
  if (answer.status >= 300) throw refused(name, answer)
}

/** Resolves when the shim answers at all. Throws `hypervisor_gone` and `timeout`. */
export async function ping({ dir, deadlineMs }: Shim): Promise<void> {
  await askVmm({ dir, socket: vzFiles.control, method: "GET", path: "/api/v1/vmm.ping", deadlineMs })
}

/** The framework's word for what the VM is doing: `Running`, `Paused`, `Resuming`, … */
async function stateWord({ dir, deadlineMs }: Shim): Promise<string> {
  const answer = await askVmm({
    dir,
    socket: vzFiles.control,
    method: "GET",
    path: "/api/v1/vm.info",
    deadlineMs,
  })
  if (answer.status !== 200) throw refused("vm.info", answer)
  const state = parsed(answer.body)?.state
  if (typeof state === "string") return state
  throw new StillframeError("hypervisor_failed", `the vz shim told no state of its VM; ${logHasWhy}`, {
    said: oneLine(answer.body),
  })
}

/** The state once it is none on the way to another. Throws `timeout` when it stays one. */
export async function settledState(shim: Shim): Promise<string> {
  return await untilState(shim, (state) => !passing.has(state))
}

/** The first state that will do. Throws `timeout`, naming the one it stayed in. */
export async function untilState(shim: Shim, willDo: (state: string) => boolean): Promise<string> {
  const end = performance.now() + shim.deadlineMs
  for (;;) {
    const state = await stateWord(shim)
    if (willDo(state)) return state
    if (performance.now() > end)
      throw new StillframeError(
        "timeout",
        `the VM is still ${state} after ${shim.deadlineMs / 1_000} s; stop the instance and start it again`,
      )
    await delay(pollMs)
  }
}

function parsed(body: string): { state?: unknown } | undefined {
  try {
    return (JSON.parse(body) ?? undefined) as { state?: unknown } | undefined
  } catch {
    return undefined
  }
}

function refused(what: string, { body }: VmmAnswer): StillframeError {
  const said = oneLine(body)
  return full.test(said)
    ? new StillframeError(
        "insufficient_storage",
        `the vz shim found no room for ${what}; free some space and try again`,
        { said },
      )
    : new StillframeError("hypervisor_failed", `the vz shim refused ${what}; ${logHasWhy}`, { said })
}

function oneLine(body: string): string {
  return body.trim().replaceAll(/\s+/g, " ").slice(0, saidCharactersMax) || "nothing"
}
