import { afterEach, beforeEach, expect, test, vi } from "vitest"
import { remembered } from "./remembered.ts"

beforeEach(() => void vi.useFakeTimers({ toFake: ["performance"] }))
afterEach(() => void vi.useRealTimers())

test("a value is made once for those who ask together, and again when it is too old", async () => {
  let made = 0
  const ask = remembered(async () => (made += 1), 1_000)

  expect(await Promise.all([ask(), ask()])).toEqual([1, 1])
  vi.advanceTimersByTime(999)
  expect(await ask()).toBe(1)
  vi.advanceTimersByTime(1)
  expect(await ask()).toBe(2)
})

test("a failure is not kept", async () => {
  const outcomes = [() => Promise.reject(new Error("away")), async () => "there"]
  const ask = remembered(() => outcomes.shift()!(), 1_000)

  await expect(ask()).rejects.toThrow("away")
  expect(await ask()).toBe("there")
})
