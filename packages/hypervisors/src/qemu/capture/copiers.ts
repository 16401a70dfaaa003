import { StillframeError } from "@stillframe/domain/errors"
import { processesWith } from "../../process/processes-with.ts"
import { endProcess } from "../../process/processes.ts"

/** In a copier's environment: the directory whose VM it copies from. */
export const copierVariable = "STILLFRAME_SAVE"

/**
 * Ends what a dead captor left copying a VM's memory, so that the save fails. A copier that hangs must not
 * outlive its captor: QEMU guards the memory of a live save, its guest and in time its monitor wait for the
 * copier, and then no command ends the save. One that hangs in a file system is left: the monitor may answer
 * all the same.
 */
export async function endCopiers(dir: string): Promise<void> {
  for await (const copier of processesWith("environ", `${copierVariable}=${dir}`)) {
    try {
      await endProcess(copier, { graceMs: 0 })
    } catch (error) {
      if (!(error instanceof StillframeError) || error.code !== "timeout") throw error
    }
  }
}
