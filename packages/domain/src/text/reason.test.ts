import { expect, test } from "vitest"
import { reasonLengthMax, shownReason } from "./reason.ts"

test("a reason is shown as it is, as far as somebody reads", () => {
  const longest = "x".repeat(reasonLengthMax)

  expect(shownReason(longest)).toBe(longest)
  expect(shownReason(`${longest}y`)).toBe(`${longest.slice(1)}…`)
})

test("what is cut stays text", () => {
  const pairs = `x${"😀".repeat(reasonLengthMax)}`

  expect([1, 2].every((from) => shownReason(pairs.slice(from - 1)).isWellFormed())).toBe(true)
})
