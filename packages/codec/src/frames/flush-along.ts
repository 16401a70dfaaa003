import type { FileHandle } from "node:fs/promises"
import { setTimeout as delay } from "node:timers/promises"

const flushEveryMs = 20

/**
 * Sends what is written on to the device while more is being made, so that little is left for the sync at the end.
 * Settles when `work` has, and throws what it or the file's sync threw.
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
