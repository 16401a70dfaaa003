import { expect, test } from "vitest"
import { skewProblem } from "./clock-skew.ts"

test.each([
  [-7_200_000, "7200 s behind the database's"],
  [3_000, "3 s ahead of the database's"],
])("a clock that is %s ms ahead is a problem", (aheadMs, words) => {
  const problem = skewProblem("this host", { aheadMs, errorMs: 10 })

  expect(problem).toMatchObject({
    code: "clock_skew",
    message: expect.stringContaining(`this host is ${words}`),
  })
})

test.each([
  [0, 1],
  [2_000, 1],
  [-1_999, 1],
  [2_500, 600],
])("a clock that is %s ms ahead, give or take %s ms, counts as right", (aheadMs, errorMs) => {
  expect(skewProblem("this host", { aheadMs, errorMs })).toBe(undefined)
})
