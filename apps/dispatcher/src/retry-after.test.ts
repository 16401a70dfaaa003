import { expect, test } from "vitest"
import { retryAfterMs } from "./retry-after.ts"

const date = "Sat, 21 Nov 2026 10:00:00 GMT"

test.each([
  ["120", 120_000],
  [" 7 ", 7_000],
  ["0", 0],
  ["Sat, 21 Nov 2026 10:01:00 GMT", 60_000],
  ["Sat, 21 Nov 2026 09:00:00 GMT", 0],
  ["9999999", 86_400_000],
  ["Sun, 21 Nov 2027 10:00:00 GMT", 86_400_000],
  ["soon", undefined],
  ["-5", undefined],
  ["", undefined],
])("Retry-After: %s asks for %s ms", (value, ms) => {
  expect(retryAfterMs({ "retry-after": value, date })).toBe(ms)
})

test("an answer without it asks for nothing", () => {
  expect(retryAfterMs({ date })).toBe(undefined)
})

test("a date asks for nothing where the answer does not show its clock", () => {
  const inAMinute = new Date(Date.now() + 60_000).toUTCString()

  expect(retryAfterMs({ "retry-after": inAMinute })).toBe(undefined)
})
