import { expect, test } from "vitest"
import { formatDuration, parseDuration } from "./duration.ts"

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

test.each([
  ["0", "0s"],
  ["1h", "1h0m0s"],
  ["24h", "24h0m0s"],
  ["1m", "1m0s"],
  ["90s", "1m30s"],
  ["1h0m1.5s", "1h0m1.5s"],
  ["1500ms", "1.5s"],
  ["250ms", "250ms"],
  ["1.5ms", "1.5ms"],
  ["20us", "20µs"],
  ["7ns", "7ns"],
])("%s is written as %s", (text, written) => {
  expect(formatDuration(parseDuration(text) ?? Number.NaN)).toBe(written)
})
