import { afterEach, expect, test, vi } from "vitest"
import { keepFloors } from "./due-floors.ts"

afterEach(() => vi.useRealTimers())

test("floors are kept for each webhook, the newest of each, and dropped every second", () => {
  vi.useFakeTimers({ toFake: ["performance"] })
  const floors = keepFloors()

  expect(floors.current()).toEqual({})
  floors.raise({ a: "1", b: "1" })
  floors.raise({ b: "2" })
  expect(floors.current()).toEqual({ a: "1", b: "2" })
  vi.advanceTimersByTime(999)
  expect(floors.current()).toEqual({ a: "1", b: "2" })
  vi.advanceTimersByTime(1)
  expect(floors.current()).toEqual({})
})
