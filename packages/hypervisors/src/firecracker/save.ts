import { readdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError, toStillframeError } from "@stillframe/domain/errors"
import { reportWritten } from "../file-vmm/report-written.ts"
import type { SavedFile } from "../file-vmm/saved-files.ts"
import type { SaveOptions } from "../file-vmm/vm-control.ts"
import { seenFrom } from "../process/seen-from.ts"
import { call, isTimeout, vmState } from "./api.ts"
import { savedNames } from "./files.ts"
import { createSnapshot } from "./requests.ts"

export interface FirecrackerSave extends SaveOptions {
  readonly vmDir: string
  readonly dir: string
  readonly withinMs: number
}

/**
 * A full snapshot of a paused VM. It can't be called off: after an abort or a time-out the answer is still
 * waited for, so that nobody writes any more when the files are removed.
 */
export async function saveVm(options: FirecrackerSave): Promise<SavedFile[]> {
  const { signal, dir } = options
  if (signal.aborted) throw cancelled()
  await assertEmpty(dir)
  try {
    await create(options)
    if (signal.aborted) throw cancelled()
  } catch (error) {
    for (const name of Object.values(savedNames)) await rm(join(dir, name), { force: true })
    throw toStillframeError(error)
  }
  return [
    { name: savedNames.memory, role: "memory" },
    { name: savedNames.state, role: "state" },
  ]
}

/** Firecracker writes over what is there, and what is there may be mapped by a VM. */
async function assertEmpty(dir: string): Promise<void> {
  const [name] = await readdir(dir)
  if (name !== undefined)
    throw new StillframeError(
      "hypervisor_failed",
      `the directory of a save holds ${name} already; give each try a fresh one`,
    )
}

async function create({ vmDir, dir, withinMs, onProgress }: FirecrackerSave): Promise<void> {
  await reportWritten(join(dir, savedNames.memory), onProgress, async () => {
    try {
      await call(vmDir, createSnapshot(seenFrom(vmDir, dir)), withinMs)
    } catch (error) {
      if (isTimeout(error)) await answers(vmDir, withinMs)
      throw error
    }
  })
}

/** Until it hears another question, which is when it is done with the save. */
async function answers(vmDir: string, withinMs: number): Promise<void> {
  await vmState(vmDir, withinMs).catch((error: unknown) => {
    if (!(error instanceof StillframeError)) throw error
  })
}

const cancelled = (): StillframeError => new StillframeError("cancelled", "the save was cancelled")
