import type { FileHandle } from "node:fs/promises"
import { setTimeout as delay } from "node:timers/promises"

const flushEveryMs = 20

/**
 * Flushes written data to the device while `work` writes more, so that the sync at the end has little left.
 * Settles when `work` has, and throws the error of `work` or of the sync.
 */
export async function flushAlong(file: FileHandle, work: Promise<unknown>): Promise<void> {
  const ended = Promise.allSettled([work]).then(() => true)
  try {
    while (!(await Promise.race([ended, delay(flushEveryMs, false)]))) await file.datasync()
  } finally {
    // Nothing may use the file after this has ended, whatever ended it.
    await ended
  }
  await work
}
