import { databaseTime, monotonicMs, type ClockReading } from "@stillframe/domain/postgres/database-clock"
import { identifyOlder, type ProcessIdentity } from "@stillframe/hypervisors/process/processes"

/**
 * A VM's process as its instance's row has it. A guest that has escaped can change its command line, and not
 * this.
 */
export interface RecordedProcess {
  readonly pid: number
  /** For how long, at least, the process has run. */
  readonly runningMs: number
}

/** The columns of an instance that say which process is its VM. */
interface Recorded {
  readonly pid?: number | null
  readonly started_at?: Date | null
  readonly attached?: object | null
}

/** Undefined for an instance without a process of ours. */
export function recordedProcess(
  { pid, started_at: startedAt, attached }: Recorded,
  clock: ClockReading,
): RecordedProcess | undefined {
  if (pid == null || startedAt == null || attached != null) return undefined
  const runningMs = databaseTime(clock, monotonicMs()).getTime() - startedAt.getTime()
  // The database's clock was ahead when the VM started: its process cannot be told from a younger one.
  return runningMs < 0 ? undefined : { pid, runningMs }
}

/** The process while it lives. */
export async function findRecorded(
  recorded: RecordedProcess | undefined,
): Promise<ProcessIdentity | undefined> {
  return recorded && identifyOlder(recorded.pid, recorded.runningMs)
}
