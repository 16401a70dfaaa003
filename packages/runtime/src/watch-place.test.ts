import { StillframeError } from "@stillframe/domain/errors"
import { afterEach, beforeEach, expect, test, vi } from "vitest"
import { createLogger } from "./logger.ts"
import { openProblems } from "./problems.ts"
import { watchPlace } from "./watch-place.ts"

beforeEach(() => vi.useFakeTimers())
afterEach(() => vi.useRealTimers())

const problems = () => openProblems(createLogger({ service: "test", level: "silent" }))
const gone = new StillframeError("storage_unavailable", "the disk is not mounted")

test("a directory that is away is a problem until it is back, and then its work is taken up once", async () => {
  const list = problems()
  let away = true
  let takenUp = 0
  const place = { dir: "/pool", check: async () => (away ? Promise.reject(gone) : undefined) }
  using _watch = watchPlace(place, { problems: list, onBack: async () => void (takenUp += 1) })

  await vi.advanceTimersByTimeAsync(2_000)
  expect(list.list()).toEqual([{ code: gone.code, message: gone.message }])
  away = false
  await vi.advanceTimersByTimeAsync(6_000)

  expect(list.list()).toEqual([])
  expect(takenUp).toBe(1)
})

test("work is taken up by a later look when the database was away at the first", async () => {
  const list = problems()
  const answers: Error[] = [gone]
  const refusals = [new Error("no database")]
  let takenUp = 0
  const place = {
    dir: "/pool",
    async check() {
      const error = answers.shift()
      if (error !== undefined) throw error
    },
  }
  const onBack = async (): Promise<void> => {
    const error = refusals.shift()
    if (error !== undefined) throw error
    takenUp += 1
  }
  using _watch = watchPlace(place, { problems: list, onBack })

  await vi.advanceTimersByTimeAsync(10_000)

  expect([takenUp, list.list()]).toEqual([1, []])
})

test("one that does not answer is a problem too, and is asked once at a time", async () => {
  const list = problems()
  const answer = Promise.withResolvers<undefined>()
  let asked = 0
  const check = (): Promise<undefined> => {
    asked += 1
    return answer.promise
  }
  using _watch = watchPlace({ dir: "/pool", check }, { problems: list, onBack: async () => {} })

  await vi.advanceTimersByTimeAsync(60_000)
  expect(list.list()).toMatchObject([{ message: expect.stringContaining("has not answered") }])
  expect(asked).toBe(1)
  answer.resolve(undefined)
  await vi.advanceTimersByTimeAsync(0)

  expect(list.list()).toEqual([])
})
