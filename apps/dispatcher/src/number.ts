import type { OwnedDatabase } from "@stillframe/db/client"
import { eventsPerBatchMax, numberEvents } from "@stillframe/db/events"

/** Numbers all events that wait, batch by batch. `onNumbered` is called after each batch that is visible. */
export async function numberAll(
  db: OwnedDatabase,
  onNumbered: () => void,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const numbered = await numberEvents(db)
    if (numbered > 0) onNumbered()
    if (numbered < eventsPerBatchMax) return
  }
}
