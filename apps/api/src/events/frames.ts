import type { EventEnvelope, SnapshotProgress } from "@stillframe/domain/events"
import { progressType } from "@stillframe/domain/events"

// Server-sent events, as WHATWG's HTML describes them (§9.2). JSON has no line breaks of its own, so each is
// one `data` line.

/**
 * How long a client waits before it connects again, and where it is: a connection lost at once starts there.
 */
export function openingFrame(position: number): string {
  return `retry: 2000\n${positionFrame(position)}`
}

/** Moves a client's `Last-Event-ID`; without data its parser dispatches nothing. */
export function positionFrame(position: number): string {
  return `id: ${position}\n\n`
}

export function eventFrame(event: EventEnvelope): string {
  return `id: ${event.sequence}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`
}

/** Events before `oldest` are gone. */
export function resetFrame(oldest: number): string {
  return `id: ${oldest - 1}\nevent: reset\ndata: ${JSON.stringify({ oldest })}\n\n`
}

/** Without an id: it is in no log, so nobody resumes from it. */
export function progressFrame(progress: SnapshotProgress): string {
  return `event: ${progressType}\ndata: ${JSON.stringify(progress)}\n\n`
}

/** A comment, which a client's parser passes over, for whoever reads the stream to know why it ends. */
export function endingFrame(reason: string): string {
  return `: ${reason}\n\n`
}
