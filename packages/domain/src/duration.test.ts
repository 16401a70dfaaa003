import { expect, test } from "vitest"
import { parseDuration } from "./duration.ts"

test.each([
  ["0", 0],
  ["30s", 30_000],
  ["1h30m", 5_400_000],
  ["1.5s", 1_500],
  ["250ms", 250],
  ["+2m", 120_000],
  [".5s", 500],
])("%s is %d ms", (text, ms) => {
  expect(parseDuration(text)).toBe(ms)
})

test.each(["", "5", "abc", "-1s", "1 s", "1d", "s", ".s", "1s ", "٣s"])("%o is no duration", (text) => {
  expect(parseDuration(text)).toBeUndefined()
})
