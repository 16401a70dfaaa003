import type { OwnedDatabase } from "@stillframe/db/client"
import { measureClock } from "@stillframe/db/hosts/measure-clock"
import { skewProblem } from "@stillframe/domain/postgres/clock-skew"
import type { ClockReading } from "@stillframe/domain/postgres/database-clock"
import type { Problems } from "@stillframe/runtime/problems"

/** The database's clock, as this host knows it. */
export interface HostClock {
  /**
   * Compares the clocks anew; a wall clock that is wrong is one of the host's problems. Throws when the
   * database is away.
   */
  measure(): Promise<void>
  /** The last comparison: it goes by the monotonic clock, so it holds while the database is away. */
  reading(): ClockReading
}

export async function openHostClock(db: OwnedDatabase, problems: Problems): Promise<HostClock> {
  let last = await measureClock(db)
  const report = (): void => problems.set("clock", skewProblem("this host", last))
  report()
  return {
    async measure() {
      last = await measureClock(db)
      report()
    },
    reading: () => ({ databaseMs: last.databaseMs, monotonicMs: last.monotonicMs }),
  }
}
