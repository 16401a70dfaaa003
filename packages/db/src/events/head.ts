import type { Database } from "../schema.ts"

export interface EventHead {
  /** The sequence of the newest event; 0 before the first. */
  readonly sequence: number
  /** The sequence of the oldest kept event; one more than `sequence` if there is none. */
  readonly oldest: number
}

/**
 * The bounds of the feed. All events up to `sequence` are visible to later statements. Read after a list,
 * `oldest` tells if that list may lack removed events.
 */
export function readEventHead(db: Database): Promise<EventHead> {
  return db.selectFrom("event_head").select(["sequence", "oldest"]).executeTakeFirstOrThrow()
}
