import type { Problem } from "../problem.ts"

/** Less goes unmentioned: NTP keeps machines within milliseconds of each other. */
const toleratedMs = 2_000

/**
 * How far a machine's wall clock is ahead of the database's, in milliseconds, and by how much the measurement
 * may err.
 */
export interface ClockSkew {
  readonly aheadMs: number
  readonly errorMs: number
}

/** Undefined for a clock that is right, as far as it could be measured. `machine`: such as `this host`. */
export function skewProblem(machine: string, { aheadMs, errorMs }: ClockSkew): Problem | undefined {
  if (Math.abs(aheadMs) - errorMs <= toleratedMs) return undefined
  const seconds = Math.round(Math.abs(aheadMs) / 1_000)
  const direction = aheadMs > 0 ? "ahead of" : "behind"
  return {
    code: "clock_skew",
    message: `the clock of ${machine} is ${seconds} s ${direction} the database's; synchronize both by NTP. Times in resources and events are the database's and stay right, but the log, the expiry of tokens and webhook-timestamp follow the machine's clock`,
  }
}
