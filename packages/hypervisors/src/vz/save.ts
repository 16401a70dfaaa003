import { copyFile, readdir, readFile, rename, rm, stat } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import type { SavedFile } from "../file-vmm/saved-files.ts"
import type { VmControl } from "../file-vmm/vm-control.ts"
import { logHasWhy } from "../refusal.ts"
import { savedFiles, vzFiles } from "./files.ts"
import { readMachine } from "./machine.ts"
import { command, settledState, type Shim } from "./shim.ts"

/** The shim is given a directory of its own making: after a failure it removes all of what it was given. */
const shimDirectory = "shim"
/** The shim's own word on what it has saved, which it writes last. */
const shimManifest = "config.json"
const progressPollMs = 100

/**
 * Has a paused VM saved into `to`: the framework's one file, which is encrypted, and beside it what a restore
 * must know of the machine. A save can't be called off. Throws what the shim said, and `corrupted` for a VM
 * whose machine is not known.
 */
export async function saveMachine(
  shim: Shim,
  to: string,
  { signal, onProgress }: Parameters<VmControl["save"]>[1],
): Promise<SavedFile[]> {
  const { machine_identifier } = await readMachine(shim.dir)
  if (signal.aborted) throw cancelled(signal)
  await assertUnsaved(to)
  const from = join(to, shimDirectory)
  const stopWatching = watchGrowth(join(from, savedFiles.state), onProgress)
  try {
    await command(shim, "vm.snapshot", { destination_path: from })
    if (signal.aborted) throw cancelled(signal)
    // The shim's log of a save goes with its directory.
    await assertOfMachine(from, machine_identifier)
    await rename(join(from, savedFiles.state), join(to, savedFiles.state))
    await copyFile(join(shim.dir, vzFiles.machine), join(to, savedFiles.machine))
    return [
      { name: savedFiles.state, role: "state" },
      { name: savedFiles.machine, role: "state" },
    ]
  } catch (error) {
    await untilIdle(shim, error)
    for (const name of Object.values(savedFiles)) await rm(join(to, name), { force: true })
    throw error
  } finally {
    stopWatching()
    await rm(from, { recursive: true, force: true })
  }
}

/** Disks may be there already, of the same pause; another save may not, for a failure would take it away. */
async function assertUnsaved(dir: string): Promise<void> {
  const ours: ReadonlySet<string> = new Set([shimDirectory, ...Object.values(savedFiles)])
  if ((await readdir(dir)).some((name) => ours.has(name)))
    throw new StillframeError(
      "hypervisor_failed",
      "the directory to save into holds a save already; save into a new one",
      { said: dir },
    )
}

/** Throws `hypervisor_failed` where the framework's file, which only it can read, holds nothing at all. */
export async function assertWhole(dir: string): Promise<void> {
  const { size } = await stat(join(dir, savedFiles.state)).catch((error: Error) => {
    throw notRestorable(error.message, error)
  })
  if (size === 0) throw notRestorable(`${savedFiles.state} is empty`)
}

async function assertOfMachine(dir: string, machineIdentifier: string): Promise<void> {
  try {
    const { shim_config } = JSON.parse(await readFile(join(dir, shimManifest), "utf8")) as {
      shim_config?: { machine_identifier_data?: string }
    }
    if (shim_config?.machine_identifier_data !== machineIdentifier)
      throw new Error("it is of another machine than the VM's")
  } catch (error) {
    throw notRestorable((error as Error).message, error)
  }
}

const notRestorable = (said: string, cause?: unknown): StillframeError =>
  new StillframeError("hypervisor_failed", `the vz shim saved nothing that could be restored; ${logHasWhy}`, {
    cause,
    said,
  })

/** A save whose answer never came may still be writing; the shim answers nothing else before it is done. */
async function untilIdle(shim: Shim, error: unknown): Promise<void> {
  if (error instanceof StillframeError && error.code === "timeout") await settledState(shim).catch(() => {})
}

function watchGrowth(file: string, onProgress: ((bytes: number) => void) | undefined): () => void {
  if (onProgress === undefined) return () => {}
  const look = async (): Promise<void> => {
    const { size } = await stat(file).catch(() => ({ size: 0 }))
    if (size > 0) onProgress(size)
  }
  const timer = setInterval(() => void look(), progressPollMs)
  return () => clearInterval(timer)
}

const cancelled = (signal: AbortSignal): StillframeError =>
  new StillframeError("cancelled", "the save was cancelled", { cause: signal.reason })
