import { stat } from "node:fs/promises"
import { setTimeout as delay } from "node:timers/promises"

const pollMs = 100
const bytesPerBlock = 512

/**
 * Tells how much of a file has been written while `work` is under way. Its size says nothing: VMMs give a
 * memory file its full length first, so what it takes up counts.
 */
export async function reportWritten<T>(
  path: string,
  onProgress: ((bytes: number) => void) | undefined,
  work: () => Promise<T>,
): Promise<T> {
  const done = new AbortController()
  const reporting = onProgress && report(path, onProgress, done.signal)
  try {
    return await work()
  } finally {
    done.abort()
    await reporting
  }
}

async function report(path: string, onProgress: (bytes: number) => void, done: AbortSignal): Promise<void> {
  while (!done.aborted) {
    const blocks = await stat(path).then(
      (file) => file.blocks,
      // Not there yet.
      () => 0,
    )
    if (blocks > 0) onProgress(blocks * bytesPerBlock)
    // Cut short when the work is done.
    await delay(pollMs, undefined, { signal: done }).catch(() => {})
  }
}
