import { rm } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import type { DiskFreeze } from "../../../disks/disk-freeze.ts"
import { sealCopy } from "../../../files/seal-copy.ts"
import { runProgram } from "../../../process/run-program.ts"
import type { Monitor } from "../../monitor/qmp.ts"
import { copyName, frozenDisk, type AttachedDisk } from "../disks.ts"
import { openAttachedFile } from "../file.ts"

/**
 * Copies the disks of a VM that its owner has paused, before the save: nobody waits for it. An overlay would
 * not do, because QEMU gives its disks up when a paused VM was saved, and cannot merge one back before its
 * owner lets the VM go on.
 */
export async function pausedFreeze(
  monitor: Monitor,
  disks: readonly AttachedDisk[],
  { dir, signal }: { dir: string; signal: AbortSignal },
): Promise<DiskFreeze> {
  let resumed = false
  const stopListening = monitor.subscribe(({ event }) => {
    if (event === "RESUME") resumed = true
  })
  const discard = async (): Promise<void> => {
    stopListening()
    for (const index of disks.keys()) await rm(join(dir, copyName(index)), { force: true })
  }
  const take = async (): Promise<void> => {
    stopListening()
    if (!resumed) return
    throw new StillframeError("conflict", "the VM was resumed while its disks were copied; try again")
  }
  try {
    await copyDisks(disks, { dir, signal })
    return {
      frozen: await Promise.all(disks.map(frozenDisk)),
      active: [],
      take,
      finish: async () => 0,
      discard,
    }
  } catch (error) {
    await discard()
    throw error
  }
}

/** Copies what the writable disks' files hold into `dir`, holes left out. They must not change meanwhile. */
export async function copyDisks(
  disks: readonly AttachedDisk[],
  { dir, signal }: { dir: string; signal: AbortSignal },
): Promise<void> {
  for (const [index, disk] of disks.entries()) {
    if (disk.readonly) continue
    // `cp` runs with our rights: by its path it might read another file than the VM's, or wait for the other
    // end of a pipe.
    await using file = await openAttachedFile(disk)
    const how = ["--reflink=auto", "--sparse=always", "--no-preserve=mode"]
    const copy = join(dir, copyName(index))
    await runProgram("cp", [...how, "--", file.opened, copy], { signal })
    await sealCopy(copy)
  }
}
