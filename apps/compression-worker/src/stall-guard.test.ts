import { createLogger } from "@stillframe/runtime/logger"
import { openProblems, type Problems } from "@stillframe/runtime/problems"
import { expect, test } from "vitest"
import { openStallGuard, type GuardedWork } from "./stall-guard.ts"

const stallMs = 200
const never = new AbortController().signal
const storageUnavailable = { code: "storage_unavailable", message: expect.stringContaining("still hangs") }

function opened({ onEnd = (): void => {} } = {}): {
  problems: Problems
  guard: ReturnType<typeof openStallGuard>
} {
  const problems = openProblems(createLogger({ service: "test", level: "silent" }))
  return { problems, guard: openStallGuard({ problems, onEnd, stallMs, endMs: 50 }) }
}

/** Work that takes several times as long as the guard waits, and calls `each` again and again. */
function steps(each: (step: number) => void): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>()
  let step = 0
  const timer = setInterval(() => {
    step++
    each(step)
    if (step < 30) return
    clearInterval(timer)
    resolve("done")
  }, stallMs / 10)
  return promise
}

test("work that goes on is not given up, however long it takes", async () => {
  const { guard } = opened()

  expect(await guard.run(never, ({ reached }) => steps(reached))).toBe("done")
})

test("work that says again and again that it is at the same place is given up", async () => {
  const { guard } = opened()

  const given = guard.run(never, ({ reached }) => steps(() => reached(1)))

  await expect(given).rejects.toMatchObject({ code: "timeout", message: expect.stringContaining("0.2 s") })
})

test("work that ends when it is told to leaves nothing behind", async () => {
  const { guard, problems } = opened()
  const untilTold = ({ signal }: GuardedWork): Promise<never> =>
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)))

  await expect(guard.run(never, untilTold)).rejects.toMatchObject({ code: "timeout" })

  expect(problems.list()).toEqual([])
  expect(await guard.run(never, async () => "done")).toBe("done")
})

test("while work hangs, other work waits and the problem is told, and both end with it", async () => {
  let ended = 0
  const { guard, problems } = opened({ onEnd: () => void ended++ })
  const hanging = Promise.withResolvers<void>()

  await expect(guard.run(never, () => hanging.promise)).rejects.toMatchObject({ code: "timeout" })
  const next = guard.run(never, async () => "begun")

  await expect(next).rejects.toMatchObject(storageUnavailable)
  expect(problems.list()).toEqual([storageUnavailable])
  expect(ended).toBe(0)
  hanging.reject(new Error("the call has returned"))
  await expect.poll(() => ended).toBe(1)
  expect(problems.list()).toEqual([])
  expect(await guard.run(never, async () => "done")).toBe("done")
})
