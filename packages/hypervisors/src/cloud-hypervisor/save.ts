import { readdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { reportWritten } from "../file-vmm/report-written.ts"
import type { SavedFile } from "../file-vmm/saved-files.ts"
import type { SaveOptions } from "../file-vmm/vm-control.ts"
import { fileExists } from "../files/file-exists.ts"
import { seenFrom } from "../process/seen-from.ts"
import { order, readVm } from "./api.ts"
import { savedNames } from "./files.ts"

/** Also a connection that was cut says nothing of what became of the order. */
const unanswered: ReadonlySet<string> = new Set(["timeout", "hypervisor_gone"])

/**
 * Saves a paused VM into an empty directory. A save can't be called off: `signal` is asked before it starts.
 * A failed save's files are removed, unless that save may still be working.
 */
export async function saveVm(
  home: string,
  target: string,
  deadlineMs: number,
  { signal, onProgress }: SaveOptions,
): Promise<SavedFile[]> {
  if (signal.aborted) throw new StillframeError("cancelled", "the save was cancelled before it began")
  await assertEmpty(target)
  try {
    await reportWritten(join(target, savedNames.memory), onProgress, async () => {
      const body = { destination_url: `file://${seenFrom(home, target)}` }
      await order(home, "vm.snapshot", { deadlineMs, body })
    })
  } catch (error) {
    if (await hasEnded(error, home, deadlineMs)) await removeSaved(target)
    throw error
  }
  return [
    { name: savedNames.config, role: "state" },
    { name: savedNames.state, role: "state" },
    // There is none where all of it lies in files of its own.
    ...((await fileExists(join(target, savedNames.memory)))
      ? [{ name: savedNames.memory, role: "memory" as const }]
      : []),
  ]
}

/** The file may be another save's, and is not ours to remove when this one fails. */
async function assertEmpty(target: string): Promise<void> {
  const [name] = await readdir(target)
  if (name !== undefined)
    throw new StillframeError(
      "hypervisor_failed",
      `${target} already holds ${name}; a save needs an empty directory`,
    )
}

/** Requests are served one after the other: once the VMM tells its state, the save before it is over. */
async function hasEnded(failure: unknown, home: string, deadlineMs: number): Promise<boolean> {
  if (!(failure instanceof StillframeError) || !unanswered.has(failure.code)) return true
  return await readVm(home, deadlineMs).then(
    () => true,
    (reason: unknown) => reason instanceof StillframeError && reason.code === "hypervisor_gone",
  )
}

async function removeSaved(target: string): Promise<void> {
  for (const name of Object.values(savedNames)) await rm(join(target, name), { force: true })
}
