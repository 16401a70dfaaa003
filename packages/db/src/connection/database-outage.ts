import { openOutage, type Outage, type OutageLog } from "@stillframe/domain/postgres/outage"

/** Logs a lost database as one outage, whichever of a process's connections notices it first. */
export interface DatabaseOutage {
  /** From here on the log tells. Before that, a start that fails says why by its own error. */
  readonly begin: () => void
  /** The pool could make no connection, or made one. */
  readonly pool: Outage
  /** An idle connection of the pool broke: the pool is asked whether it makes another. */
  readonly broken: () => void
  /** The connection for notifications: its loss is logged only while the pool reaches the database. */
  readonly notifications: Outage
}

/** One failure is no outage: a connection that was ended is replaced in half a second. */
const missesMin = 2

/**
 * `reach` asks the database for anything over the pool, which reports to `pool` when it gets no connection.
 */
export function openDatabaseOutage(log: OutageLog, reach: () => Promise<unknown>): DatabaseOutage {
  const database = openOutage(log, {
    lost: "the database can't be reached; trying again",
    back: "the database can be reached again",
  })
  const notifications = openOutage(log, {
    lost: "notifications of the database are missed, so changes are seen later; connecting again",
    back: "notifications of the database are received again",
  })
  let telling = false
  let lost = false
  let misses = 0
  let asking: Promise<void> | undefined

  function ask(): Promise<void> {
    const nothing = (): void => undefined
    // A failure is in `lost` by then.
    return (asking ??= reach()
      .then(nothing, nothing)
      .finally(() => (asking = undefined)))
  }

  async function missed(error: unknown): Promise<void> {
    await ask()
    misses = lost ? 0 : misses + 1
    if (telling && misses >= missesMin) notifications.failed(error)
  }

  return {
    begin: () => void (telling = true),
    pool: {
      failed(error) {
        lost = true
        if (telling) database.failed(error)
      },
      worked() {
        lost = false
        database.worked()
      },
    },
    broken: () => void ask(),
    notifications: {
      failed: (error) => void missed(error),
      worked() {
        misses = 0
        notifications.worked()
      },
    },
  }
}
