import { afterEach, beforeEach, expect, test, vi } from "vitest"
import { pauseUntil } from "./pause-until.ts"

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

function workerByHand() {
  let paused = false
  return {
    isPaused: () => paused,
    pause: async () => void (paused = true),
    resume: async () => void (paused = false),
  }
}

const unexpected = (error: Error): never => expect.unreachable(error.message)

test("a worker that lost its tables is paused until they are there, and then no timer is left", async () => {
  const worker = workerByHand()
  let intact = false
  pauseUntil(worker, async () => intact, new AbortController().signal, unexpected)

  await vi.advanceTimersByTimeAsync(3_000)
  expect(worker.isPaused()).toBe(true)
  intact = true
  await vi.advanceTimersByTimeAsync(1_000)

  expect(worker.isPaused()).toBe(false)
  expect(vi.getTimerCount()).toBe(0)
})

test("closing the engine ends the wait", () => {
  const closed = new AbortController()
  pauseUntil(workerByHand(), async () => false, closed.signal, unexpected)

  closed.abort()

  expect(vi.getTimerCount()).toBe(0)
})

test("a worker that loses its connection to a closing engine is left alone, so that the process can end", () => {
  const worker = workerByHand()

  pauseUntil(worker, async () => false, AbortSignal.abort(), unexpected)

  expect(worker.isPaused()).toBe(false)
  expect(vi.getTimerCount()).toBe(0)
})
