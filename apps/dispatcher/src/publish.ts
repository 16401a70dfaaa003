import type { OwnedDatabase } from "@stillframe/db/client"
import { markLost, nextUnrelayedInMs, relayBatchMax, takeUnrelayed } from "@stillframe/db/operations/relay"
import type { QueueEngine } from "@stillframe/queue/contract"

/**
 * Puts operations that are due into their queues. When the queue is down the rows are taken back with a new
 * wake, because nobody knows which jobs had arrived. Returns when the next operation is due.
 */
export async function publishOperations(
  db: OwnedDatabase,
  engine: QueueEngine,
  signal: AbortSignal,
): Promise<number | undefined> {
  while (!signal.aborted) {
    const taken = await takeUnrelayed(db)
    if (taken.length === 0) break
    try {
      await engine.add(taken)
    } catch (error) {
      await markLost(db, taken)
      throw error
    }
    if (taken.length < relayBatchMax) break
  }
  return nextUnrelayedInMs(db)
}
