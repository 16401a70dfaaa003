import type { ClockSkew } from "@stillframe/domain/postgres/clock-skew"
import { monotonicMs, type ClockReading } from "@stillframe/domain/postgres/database-clock"
import { now } from "../client.ts"
import type { Database } from "../schema.ts"

/** Compares this machine's clocks with the database's. The error is at most half of the round trip. */
export async function measureClock(db: Database): Promise<ClockReading & ClockSkew> {
  const sentMs = monotonicMs()
  const databaseMs = (await now(db)).getTime()
  const wallMs = Date.now()
  const errorMs = (monotonicMs() - sentMs) / 2
  return { databaseMs, monotonicMs: sentMs + errorMs, aheadMs: wallMs - errorMs - databaseMs, errorMs }
}
