import { databaseTime, type ClockReading } from "./database-clock.ts"

/** A slow answer or a correction by NTP may look like a step of less. */
const toleratedMs = 1_000

/**
 * Tells by readings of the database's clock, in their order, whether times that it wrote may lie ahead: at
 * the first reading, because nobody watched before, and when it went back since the last one. That holds for
 * the next reading too, because writes were under way.
 */
export function watchForStepsBack(): (reading: ClockReading) => boolean {
  let last: ClockReading | undefined
  let looks = 1
  return (reading) => {
    const expectedMs = last === undefined ? 0 : databaseTime(last, reading.monotonicMs).getTime()
    if (expectedMs - reading.databaseMs > toleratedMs) looks = 2
    last = reading
    if (looks === 0) return false
    looks -= 1
    return true
  }
}
