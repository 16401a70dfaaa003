import { listEvents } from "@stillframe/db/events/events"
import { readEventHead } from "@stillframe/db/events/head"
import { matchesEvent, type EventFilter } from "@stillframe/domain/events"
import type { ApiDeps } from "../http/deps.ts"
import { eventFrame, resetFrame } from "./frames.ts"
import type { Following } from "./tail.ts"
import type { FramedEvent } from "./window.ts"

/**
 * Bounds what a reader that stands still holds in memory, and what is parsed and written in one turn of the
 * event loop: an event has up to 20 KiB, and as many readers as the pool has connections may get theirs in
 * the same turn.
 */
const eventsPerList = 25
/**
 * All readers take this much in one turn of the event loop, so that a thousand of them do not hold up the
 * rest for long.
 */
const perTurn = { events: 20, bytes: 32 * 1024 } as const

export interface EventBatch {
  /** As they are sent; empty when none matches. */
  readonly frames: string
  /** Everything up to here has been looked at. */
  readonly position: number
}

/**
 * All that matches after `after`, without a gap or a double and without an end: from Postgres as long as the
 * window does not reach back that far, then from the window. `moved` resolves when the window may have moved
 * on since its last call.
 */
export async function* followEvents(
  db: ApiDeps["db"],
  window: Following["window"],
  { after, filter, moved }: { after: number; filter: EventFilter; moved: () => Promise<void> },
): AsyncGenerator<EventBatch, void, undefined> {
  for (let position = after; ;) {
    const batch = window.holds(position)
      ? fromWindow(window, filter, position)
      : await fromPostgres(db, window, filter, position)
    if (batch.position === position) {
      await moved()
      continue
    }
    position = batch.position
    yield batch
  }
}

function fromWindow(window: Following["window"], filter: EventFilter, after: number): EventBatch {
  const batch = firstOf(window.after(after, perTurn.events))
  const matching = batch.filter(({ event }) => matchesEvent(event, filter))
  return {
    frames: matching.map(({ frame }) => frame).join(""),
    position: batch.at(-1)?.event.sequence ?? after,
  }
}

/** At least one, however large it is. */
function firstOf(events: readonly FramedEvent[]): readonly FramedEvent[] {
  let bytes = 0
  const over = events.findIndex(({ frame }) => (bytes += frame.length) > perTurn.bytes)
  return over === -1 ? events : events.slice(0, Math.max(1, over))
}

async function fromPostgres(
  db: ApiDeps["db"],
  window: Following["window"],
  filter: EventFilter,
  after: number,
): Promise<EventBatch> {
  const { head } = window
  // No event can match, and Postgres would look at each.
  if (filter.types?.length === 0) return { frames: "", position: head }
  const events = await listEvents(db, { ...filter, after, limit: eventsPerList })
  const { oldest } = await readEventHead(db)
  // Some may have been removed before they were listed.
  if (after + 1 < oldest) return { frames: resetFrame(oldest), position: oldest - 1 }
  const last = events.at(-1)?.sequence ?? after
  return {
    frames: events.map(eventFrame).join(""),
    // A list that ends by itself has seen all that was visible before it.
    position: events.length < eventsPerList ? Math.max(head, last) : last,
  }
}
