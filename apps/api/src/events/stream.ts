import { once } from "node:events"
import type { Writable } from "node:stream"
import { setImmediate as nextTurn } from "node:timers/promises"
import type { EventHead } from "@stillframe/db/events/head"
import type { EventFilter, SnapshotProgress } from "@stillframe/domain/events"
import { isConnectionLoss } from "@stillframe/domain/postgres/connection-loss"
import type { ApiDeps } from "../http/deps.ts"
import { followEvents } from "./follow.ts"
import { endingFrame, openingFrame, positionFrame, progressFrame, resetFrame } from "./frames.ts"

export interface StreamRequest {
  readonly after: number
  readonly filter: EventFilter
  readonly withProgress: boolean
  /** The present bounds of the feed. */
  readonly head: EventHead
  /** Infinity: never. */
  readonly expiresInMs: number
  readonly onRevoked: (listener: () => void) => () => void
  /** Aborted when the client is gone. */
  readonly signal: AbortSignal
}

// The maximum of setTimeout. A client that is disconnected after 24 days connects again.
const timerMsMax = 2 ** 31 - 1

/**
 * Writes events to `out` until the client is gone, its token expires or is revoked, the process stops or it
 * does not keep up; then ends it. While `out` is full nothing is read for it and nothing kept, so that a slow
 * reader costs its socket's buffer.
 */
export async function streamEvents(deps: ApiDeps, out: Writable, request: StreamRequest): Promise<void> {
  const { db, log, eventTail, stopping, streamHeartbeatMs } = deps
  const over = new AbortController()
  const ended = AbortSignal.any([over.signal, request.signal, stopping])
  const bell = openBell(ended)
  const following = eventTail.follow(request.head.sequence, { wake: bell.ring, progress: writeProgress })
  const { window } = following
  let position = request.after
  let fullSince: number | undefined

  function writeProgress(progress: SnapshotProgress): void {
    if (request.withProgress && concerns(progress, request.filter) && !out.writableNeedDrain)
      out.write(progressFrame(progress))
  }

  function beat(): void {
    if (!out.writableNeedDrain) out.write(positionFrame(position))
    // More has come since it was full than it may be behind.
    else if (fullSince !== undefined && !window.holds(fullSince)) over.abort()
  }

  function endBecause(reason: string): void {
    if (!over.signal.aborted && !out.writableNeedDrain) out.write(endingFrame(reason))
    over.abort()
  }

  const heartbeat = setInterval(beat, streamHeartbeatMs)
  const expiry = endAfter(request.expiresInMs, endBecause)
  const stopListening = request.onRevoked(() => endBecause("the token was revoked"))
  try {
    out.write(openingFrame(position))
    if (position > request.head.sequence) {
      // The client has read another feed, such as that of a database before it was restored.
      out.write(resetFrame(request.head.oldest))
      position = request.head.oldest - 1
    }
    const { filter } = request
    for await (const batch of followEvents(db, window, { after: position, filter, moved: bell.rung })) {
      if (batch.frames !== "" && !out.write(batch.frames)) {
        fullSince = window.head
        await once(out, "drain", { signal: ended })
        fullSince = undefined
      }
      position = batch.position
      // Between the batches of a long way everybody else has a turn.
      await nextTurn(undefined, { signal: ended })
    }
  } catch (err) {
    if (!ended.aborted && !isConnectionLoss(err)) log.warn({ err }, "event stream broken off")
  } finally {
    clearInterval(heartbeat)
    clearTimeout(expiry)
    stopListening()
    following.stop()
    // Node gathers the writes of a turn. What is still there after it would wait for a reader that does not
    // read.
    await nextTurn()
    if (out.writableLength === 0) out.end()
    else out.destroy()
  }
}

function endAfter(expiresInMs: number, end: (reason: string) => void): NodeJS.Timeout {
  return expiresInMs > timerMsMax
    ? setTimeout(end, timerMsMax, "a stream lasts 24 days at most; connect again")
    : setTimeout(end, expiresInMs, "the token has expired")
}

function concerns(progress: SnapshotProgress, { subjectId, instanceId }: EventFilter): boolean {
  return (
    (subjectId === undefined || subjectId === progress.snapshot_id) &&
    (instanceId === undefined || instanceId === progress.source_instance_id)
  )
}

interface Bell {
  readonly ring: () => void
  /** Resolves once it was rung since the last call; rejects with the signal's reason when that is aborted. */
  readonly rung: () => Promise<void>
}

function openBell(signal: AbortSignal): Bell {
  let rung = false
  let resume = (): void => {}
  const ring = (): void => {
    rung = true
    resume()
  }
  signal.addEventListener("abort", ring, { once: true })
  return {
    ring,
    async rung() {
      if (!rung && !signal.aborted) await new Promise<void>((resolve) => (resume = resolve))
      rung = false
      signal.throwIfAborted()
    },
  }
}
