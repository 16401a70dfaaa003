import type { EventEnvelope } from "@stillframe/domain/events"
import { eventFrame } from "./frames.ts"

/** Limits the end of the feed in memory, and so how far a slow reader may fall behind. */
const windowLimits = { eventsMax: 1_000, bytesMax: 1024 ** 2 }

export interface FramedEvent {
  readonly event: EventEnvelope
  /** As it is sent. */
  readonly frame: string
}

/** The newest events, within its limits and without a gap. */
export interface EventWindow {
  /** The sequence of the newest event. */
  readonly head: number
  /** True if every event after `position` up to the head is here. */
  holds(position: number): boolean
  /** Up to `limit` events after a position that it holds. */
  after(position: number, limit: number): readonly FramedEvent[]
  /** Events after the head, oldest first. */
  append(events: readonly EventEnvelope[]): void
}

/** An empty window that goes on from `head`. */
export function openWindow(head: number, { eventsMax, bytesMax } = windowLimits): EventWindow {
  let framed: FramedEvent[] = []
  let bytes = 0

  function shrink(): void {
    let dropped = 0
    while (framed.length - dropped > eventsMax || bytes > bytesMax)
      bytes -= framed[dropped++]?.frame.length ?? bytes
    framed.splice(0, dropped)
  }

  return {
    get head() {
      return head
    },
    holds: (position) => position >= head - framed.length,
    after(position, limit) {
      // Numbers are dense, so a position is an index.
      const from = position - (head - framed.length)
      return framed.slice(from, from + limit)
    },
    append(events) {
      // Unless a rule has removed some before they were read.
      if (events[0]?.sequence !== head + 1) {
        framed = []
        bytes = 0
      }
      for (const event of events) {
        const frame = eventFrame(event)
        framed.push({ event, frame })
        bytes += frame.length
        head = event.sequence
      }
      shrink()
    },
  }
}
