/**
 * Milliseconds of the machine's monotonic clock: it cannot be set, and all processes of the machine read the
 * same.
 */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1_000_000
}

/** At `monotonicMs` of this machine the database's clock read `databaseMs`, since 1970. */
export interface ClockReading {
  readonly databaseMs: number
  readonly monotonicMs: number
}

/** The database's time at a moment of this machine's monotonic clock, whatever its wall clock says. */
export function databaseTime(reading: ClockReading, atMonotonicMs: number): Date {
  return new Date(reading.databaseMs + atMonotonicMs - reading.monotonicMs)
}
