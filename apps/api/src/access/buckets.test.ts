import { expect, test } from "vitest"
import { openBuckets } from "./buckets.ts"

test("a key may take ten seconds of its rate at once, then its rate, and is told when to come again", () => {
  let nowMs = 0
  const take = openBuckets(2, () => nowMs)

  for (let n = 0; n < 20; n += 1) expect(take("one")).toBe(0)
  expect(take("one")).toBe(500)
  expect(take("other")).toBe(0)
  nowMs += 400
  expect(take("one")).toBeCloseTo(100)
  nowMs += 100
  expect(take("one")).toBe(0)
  expect(take("one")).toBe(500)
  nowMs += 3_600_000
  for (let n = 0; n < 20; n += 1) expect(take("one")).toBe(0)
  expect(take("one")).toBe(500)
})

test("a rate of 0 limits nothing", () => {
  const take = openBuckets(0)
  for (let n = 0; n < 10_000; n += 1) expect(take("one")).toBe(0)
})
