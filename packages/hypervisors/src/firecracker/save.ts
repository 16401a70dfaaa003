import { readdir } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError, toStillframeError } from "@stillframe/domain/errors"
import { reportWritten } from "../report-written.ts"
import type { SavedFile } from "../saved-files.ts"
import type { SaveOptions } from "../vm-control.ts"
import { call, isTimeout, vmState } from "./api.ts"
import { checkSaved } from "./check-saved.ts"
import { savedNames } from "./files.ts"
import { createSnapshot } from "./requests.ts"
import { savePlace, type SavePlace } from "./save-place.ts"

export interface FirecrackerSave extends SaveOptions {
  readonly vmDir: string
  readonly dir: string
  readonly memoryMib: number
  readonly withinMs: number
}

/**
 * A full snapshot of a paused VM. It can't be called off: after an abort or a time-out the answer is still waited for, so that
 * nobody writes any more when the files are removed.
 */
export async function saveVm(options: FirecrackerSave): Promise<SavedFile[]> {
  const { signal, memoryMib } = options
  if (signal.aborted) throw cancelled()
  await assertEmpty(options.dir)
  const place = await savePlace(options)
  try {
    await create(place, options)
    await checkSaved(place.path, memoryMib)
    if (signal.aborted) throw cancelled()
  } catch (error) {
    await place.remove()
    throw toStillframeError(error)
  }
  return (["memory", "state"] as const).map((role) => savedFile(place, role))
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

async function create(place: SavePlace, { vmDir, withinMs, onProgress }: FirecrackerSave): Promise<void> {
  await reportWritten(join(place.path, savedNames.memory), onProgress, async () => {
    try {
      await call(vmDir, createSnapshot(place.name), withinMs)
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

function savedFile(place: SavePlace, role: SavedFile["role"]): SavedFile {
  const name = savedNames[role]
  return { name, role, ...(place.staged && { staged: join(place.path, name) }) }
}

const cancelled = (): StillframeError => new StillframeError("cancelled", "the save was cancelled")
