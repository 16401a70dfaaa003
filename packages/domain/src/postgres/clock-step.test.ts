import { expect, test } from "vitest"
import { watchForStepsBack } from "./clock-step.ts"

test("times may lie ahead at the first look and at the two after the database's clock went back", () => {
  const mayLieAhead = watchForStepsBack()
  const readings = [
    // The clock runs with the machine's, errs a little, is set forward, and is set back.
    [1_000_000, 0],
    [1_015_000, 15_000],
    [1_029_500, 30_000],
    [9_045_000, 45_000],
    [1_060_000, 60_000],
    [1_075_000, 75_000],
    [1_090_000, 90_000],
  ] as const

  expect(readings.map(([databaseMs, monotonicMs]) => mayLieAhead({ databaseMs, monotonicMs }))).toEqual([
    true,
    false,
    false,
    false,
    true,
    true,
    false,
  ])
})
