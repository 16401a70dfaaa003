import { setTimeout as delay } from "node:timers/promises"

// serialization_failure, deadlock_detected: Postgres has undone all of the transaction.
const conflictCodes: ReadonlySet<string | undefined> = new Set(["40001", "40P01"])
const triesMax = 6
const pauseMsMin = 10

/**
 * Runs `work` again while Postgres ends it for the sake of another transaction, with random pauses, at most 6
 * times. So `work` must do nothing but talk to the database, in one transaction or one statement.
 */
export async function repeatOnConflict<T>(work: () => Promise<T>): Promise<T> {
  for (let tried = 1; ; tried++) {
    try {
      return await work()
    } catch (error) {
      const { code } = (error ?? {}) as { code?: string }
      if (!conflictCodes.has(code) || tried === triesMax) throw error
      await delay(Math.random() * pauseMsMin * 2 ** tried)
    }
  }
}
