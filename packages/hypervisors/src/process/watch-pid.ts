import { setTimeout as delay } from "node:timers/promises"
import { processAlive, type ProcessIdentity } from "./processes.ts"

const WATCH_POLL_MS = 1000

/**
 * Resolves when a process has ended, within a second of its end. For a VM that someone else started: its exit
 * status is its parent's, and its one monitor is not to be held. Rejects with the signal's reason.
 */
export async function watchPid(
  identity: ProcessIdentity,
  signal: AbortSignal,
  pollMs: number = WATCH_POLL_MS,
): Promise<void> {
  while (await processAlive(identity)) await delay(pollMs, undefined, { signal })
}
