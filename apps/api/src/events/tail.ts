import { listEvents } from "@stillframe/db/events/events"
import { listenForProgress } from "@stillframe/db/operations/progress"
import type { Database } from "@stillframe/db/schema"
import type { EventEnvelope, SnapshotProgress } from "@stillframe/domain/events"
import { openTrouble } from "@stillframe/domain/postgres/outage"
import type { Logger } from "@stillframe/runtime/logger"
import { type Waiting, waitUntil } from "../http/wait.ts"
import { openWindow, type EventWindow } from "./window.ts"

const afterFailureMs = 1_000
/** So many of the largest events have 2 MiB. They are parsed and framed within some milliseconds. */
const eventsPerRead = 100

export interface Follower {
  /** The window has moved on. */
  wake(): void
  progress(progress: SnapshotProgress): void
}

interface TailDeps extends Waiting {
  readonly db: Database
  readonly log: Logger
}

/** The end of the feed, read once per process however many follow it, and not at all when nobody does. */
export interface EventTail {
  /** Goes on from where the feed ends now, by Postgres, if this is the first to follow. */
  follow(head: number, follower: Follower): Following
}

export interface Following {
  /** Events up to its head are visible to every later query. */
  readonly window: Omit<EventWindow, "append">
  stop(): void
}

export function openEventTail(deps: TailDeps): EventTail {
  const followers = new Set<Follower>()
  let window = openWindow(0)
  let stopReading = (): void => {}

  function startReading(head: number): void {
    const reading = new AbortController()
    window = openWindow(head)
    void readOn(deps, window, { signal: reading.signal, onRead: wakeAll })
    const stopListening = listenForProgress(deps.waker, tellAll)
    stopReading = () => {
      reading.abort()
      stopListening()
    }
  }

  function wakeAll(): void {
    for (const follower of followers) follower.wake()
  }

  function tellAll(progress: SnapshotProgress): void {
    for (const follower of followers) follower.progress(progress)
  }

  return {
    follow(head, follower) {
      if (followers.size === 0) startReading(head)
      followers.add(follower)
      return {
        window,
        stop() {
          if (followers.delete(follower) && followers.size === 0) stopReading()
        },
      }
    },
  }
}

/**
 * Reads what is new into the window until told to stop. Without a database it tries again: whoever follows
 * needs no telling.
 */
async function readOn(
  { db, log, ...waiting }: TailDeps,
  window: EventWindow,
  { signal, onRead }: { signal: AbortSignal; onRead: () => void },
): Promise<void> {
  const read = async (): Promise<EventEnvelope[] | undefined> => {
    const events = await listEvents(db, { after: window.head, limit: eventsPerRead })
    return events.length === 0 ? undefined : events
  }
  const trouble = openTrouble(log, {
    lost: "event feed not read; trying again",
    back: "the event feed is read again",
  })
  while (!signal.aborted && !waiting.stopping.aborted) {
    try {
      const events = await waitUntil(waiting, read, { timeoutMs: Infinity, signal, on: "numbered" })
      if (events === undefined || signal.aborted) continue
      trouble.worked()
      window.append(events)
      onRead()
    } catch (err) {
      if (signal.aborted) return
      trouble.failed(err)
      await waitUntil(waiting, nothing, { timeoutMs: afterFailureMs, signal }).catch(nothing)
    }
  }
}

async function nothing(): Promise<undefined> {}
