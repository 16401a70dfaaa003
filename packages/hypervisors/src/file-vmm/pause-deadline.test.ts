import { expect, test } from "vitest"
import { pauseDeadline } from "./pause-deadline.ts"

const limits = { expectedMs: 18_000, limitMs: 120_000 }

test("a save that stands still is given up at its expected time", () => {
  const passed = pauseDeadline(limits)

  expect([passed(1_000, 100), passed(17_999, 100), passed(18_000, 100)]).toEqual([false, false, true])
})

test("a save that grows is given more time, ten seconds from its last growth", () => {
  const passed = pauseDeadline(limits)

  expect([passed(17_000, 100), passed(18_000, 100), passed(26_999, 100)]).toEqual([false, false, false])
  expect(passed(27_000, 100)).toBe(true)
})

test("no growth moves the operator's limit", () => {
  const passed = pauseDeadline(limits)

  expect([passed(119_999, 100), passed(120_000, 200)]).toEqual([false, true])
})
