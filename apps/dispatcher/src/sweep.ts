import type { OwnedDatabase } from "@stillframe/db/client"
import { markLost, relayBatchMax, relayedLongAgo } from "@stillframe/db/operations/relay"
import type { QueueEngine } from "@stillframe/queue/contract"

/** A job may take this long from the row's mark to the queue before anybody asks for it. */
const relayGraceMs = 30_000

/**
 * Finds queued operations whose job the queue no longer has (wiped, restored, evicted, taken by a worker that
 * died before its claim) and marks them for relaying. After the queue's own tables had to be built again,
 * that is all of them. Returns how many.
 */
export async function sweepLostJobs(db: OwnedDatabase, engine: QueueEngine): Promise<number> {
  const wiped = await engine.repair()
  return relayAgain(db, engine, wiped ? 0 : relayGraceMs)
}

async function relayAgain(db: OwnedDatabase, engine: QueueEngine, olderThanMs: number): Promise<number> {
  let lost = 0
  for (;;) {
    const relayed = await relayedLongAgo(db, olderThanMs)
    const held = await engine.unfinished(relayed)
    const missing = relayed.filter(({ id }) => !held.has(id))
    await markLost(db, missing)
    lost += missing.length
    // Rows that were marked are not found again; without any, another look would show the same batch.
    if (relayed.length < relayBatchMax || missing.length === 0) return lost
  }
}
