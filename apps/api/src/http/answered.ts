import type { OwnedDatabase } from "@stillframe/db/client"
import { markAnswered } from "@stillframe/db/snapshots/repeated-creates"
import { openTrouble } from "@stillframe/domain/postgres/outage"
import type { Logger } from "@stillframe/runtime/logger"

/**
 * In a create's own path this would be a round trip more; a retry comes half a second later at the earliest.
 */
const flushMs = 50

/** Notes, some at a time, which creates' answers have been sent. */
export interface Answered extends AsyncDisposable {
  note(snapshotId: string): void
}

export function openAnswered(db: OwnedDatabase, log: Logger): Answered {
  let noted: string[] = []
  let timer: NodeJS.Timeout | undefined
  let flushing: Promise<void> = Promise.resolve()
  const trouble = openTrouble(log, { lost: "answers not noted", back: "answers are noted again" })

  function flush(): void {
    timer = undefined
    const ids = noted
    noted = []
    if (ids.length === 0) return
    // Not noted, a retry is answered with the same snapshot: what it asked for once it gets once.
    flushing = flushing.then(() => markAnswered(db, ids)).then(trouble.worked, trouble.failed)
  }

  return {
    note(snapshotId) {
      noted.push(snapshotId)
      timer ??= setTimeout(flush, flushMs)
    },
    async [Symbol.asyncDispose]() {
      clearTimeout(timer)
      flush()
      await flushing
    },
  }
}
