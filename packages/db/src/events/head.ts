import type { Database } from "../schema.ts"

export interface EventHead {
  /** Of the newest event; 0 before the first. */
  readonly sequence: number
  /** Of the oldest that is kept; one more than `sequence` when none is. */
  readonly oldest: number
}

/**
 * Where the feed ends and begins. All events up to `sequence` are visible to statements after this one. Read
 * after a list, `oldest` says whether that list may lack events that were removed.
 */
export function readEventHead(db: Database): Promise<EventHead> {
  return db.selectFrom("event_head").select(["sequence", "oldest"]).executeTakeFirstOrThrow()
}
