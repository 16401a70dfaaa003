import { join, relative, resolve } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import type { VmmLaunch } from "../file-vmm/vmm.ts"
import type { ProcessIdentity } from "../process/processes.ts"
import { lastWords, startProcess } from "../process/start-process.ts"
import { logHasWhy } from "../refusal.ts"
import { savedFiles, vzFiles } from "./files.ts"
import { assertVzRuns, hostIdentity, type VzHost } from "./host.ts"
import { newMachine, readMachine, writeMachine, type Machine } from "./machine.ts"
import { shimConfig } from "./shim-config.ts"
import { ping, settledState, type Shim } from "./shim.ts"

const startPollMs = 10
/** The shim ends when the state can't be loaded, whether it serves by then or not. */
const refusals: ReadonlySet<string> = new Set(["hypervisor_failed", "hypervisor_gone"])

/**
 * Starts a shim, which boots its machine at once: it knows no machine that is made and waits. Throws as
 * `startProcess` does, `timeout`, `hypervisor_unavailable` on a host that is no such Mac, and `not_supported`
 * for a VM that vz can't run.
 */
export async function launchVz(host: VzHost, shim: Shim, options: VmmLaunch): Promise<ProcessIdentity> {
  assertVzRuns(host)
  const machine = newMachine(await here(host, options.signal))
  return await startShim({ shim, options, machine })
}

/**
 * Starts a shim on a saved state, whose machine goes on under the identifier and the MAC address that it had:
 * a fork's guest, too, can't be given others. Throws as `launchVz` does, `corrupted` where the snapshot does
 * not tell them, `not_supported` for one that another host has saved, and `hypervisor_failed` where the
 * framework refuses it.
 */
export async function restoreVz(
  host: VzHost,
  shim: Shim,
  options: VmmLaunch & { readonly saved: string },
): Promise<ProcessIdentity> {
  assertVzRuns(host)
  const from = resolve(options.dir, options.saved)
  const [saved, now] = await Promise.all([readMachine(from), here(host, options.signal)])
  if (saved.host !== now.host)
    throw new StillframeError(
      "not_supported",
      "this machine was saved on another Mac, and only that one holds the key to its state; restore it there",
    )
  try {
    const savedState = join(relative(options.dir, from), savedFiles.state)
    return await startShim({ shim, options, machine: { ...saved, ...now }, savedState })
  } catch (error) {
    if (!(error instanceof StillframeError) || !refusals.has(error.code)) throw error
    // The end of a process is told with its last words already.
    const words = error.code === "hypervisor_gone" ? await lastWords(options.dir, vzFiles.log) : undefined
    throw new StillframeError(
      "hypervisor_failed",
      `the saved machine could not be loaded (under Darwin ${now.system}, saved under ${saved.system}); load it under the system that saved it, or start the VM from its disks`,
      { cause: error, said: words ?? error.said },
    )
  }
}

async function startShim({
  shim,
  options: { dir, binary, config, disks, identity, runAs, signal },
  machine,
  savedState,
}: {
  shim: Shim
  options: VmmLaunch
  machine: Machine
  savedState?: string
}): Promise<ProcessIdentity> {
  if (runAs !== undefined)
    throw new StillframeError(
      "not_supported",
      "vz runs a VM as the service's own user; start the service as the user that its VMs shall be of, not as root",
    )
  const said = shimConfig(config, { disks, machine, ...(savedState !== undefined && { savedState }) })
  await writeMachine(dir, machine)
  const started = await startProcess({
    program: "the vz shim",
    setting: "VZ_SHIM_BINARY",
    binary,
    args: ["-config", JSON.stringify(said)],
    dir,
    log: vzFiles.log,
    identity,
    untilReady: async () => {
      await untilAnswers(shim, signal)
      if (savedState !== undefined) await assertPaused(shim)
    },
  })
  return started.identity
}

async function untilAnswers(shim: Shim, signal: AbortSignal): Promise<void> {
  for (const end = performance.now() + shim.deadlineMs; ; await delay(startPollMs)) {
    if (signal.aborted)
      throw new StillframeError("cancelled", "the start was cancelled", { cause: signal.reason })
    try {
      await ping(shim)
      return
    } catch (error) {
      if (!(error instanceof StillframeError) || error.code !== "hypervisor_gone") throw error
      if (performance.now() > end)
        throw new StillframeError(
          "timeout",
          `the vz shim served nothing in ${shim.deadlineMs / 1_000} s; ${logHasWhy}`,
          { said: await lastWords(shim.dir, vzFiles.log) },
        )
    }
  }
}

async function assertPaused(shim: Shim): Promise<void> {
  const state = await settledState(shim)
  if (state !== "Paused")
    throw new StillframeError("hypervisor_failed", `the VM is ${state} after its state was loaded`)
}

async function here(host: VzHost, signal: AbortSignal): Promise<Pick<Machine, "host" | "system">> {
  return { host: await hostIdentity(host, signal), system: host.release }
}
