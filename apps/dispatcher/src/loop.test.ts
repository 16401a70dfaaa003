import { createLogger } from "@stillframe/runtime/logger"
import { expect, test } from "vitest"
import { startLoop } from "./loop.ts"

const log = createLogger({ service: "test", level: "silent" })
const hourMs = 3_600_000

/** A loop whose turns the test ends one by one. */
function loopByHand(everyMs = hourMs) {
  const turns: PromiseWithResolvers<number | undefined>[] = []
  let running = 0
  let runningMax = 0
  const loop = startLoop({
    name: "test",
    everyMs,
    log,
    async turn() {
      running += 1
      runningMax = Math.max(runningMax, running)
      const turn = Promise.withResolvers<number | undefined>()
      turns.push(turn)
      try {
        return await turn.promise
      } finally {
        running -= 1
      }
    },
  })
  return { loop, turns, runningMax: () => runningMax }
}

test("turns follow one another, and a wake-up during a turn brings one more", async () => {
  const { loop, turns, runningMax } = loopByHand()
  await expect.poll(() => turns.length).toBe(1)

  loop.wake()
  loop.wake()
  turns[0]!.resolve(undefined)

  await expect.poll(() => turns.length).toBe(2)
  turns[1]!.resolve(undefined)
  await loop.stop()
  expect(turns.length).toBe(2)
  expect(runningMax()).toBe(1)
})

test("a turn says when it wants the next one", async () => {
  const { loop, turns } = loopByHand()
  await expect.poll(() => turns.length).toBe(1)

  turns[0]!.resolve(1)

  await expect.poll(() => turns.length).toBe(2)
  turns[1]!.resolve(undefined)
  await loop.stop()
})

test("a turn that fails is taken again", async () => {
  const { loop, turns } = loopByHand(1)
  await expect.poll(() => turns.length).toBe(1)

  turns[0]!.reject(new Error("the database is away"))

  await expect.poll(() => turns.length).toBe(2)
  turns[1]!.resolve(undefined)
  const stopped = loop.stop()
  for (const turn of turns) turn.resolve(undefined)
  await stopped
})

test("stopping waits for the turn that runs and tells it", async () => {
  const started = Promise.withResolvers<AbortSignal>()
  const end = Promise.withResolvers<undefined>()
  let stopped = false
  const loop = startLoop({
    name: "test",
    everyMs: hourMs,
    log,
    turn(signal) {
      started.resolve(signal)
      return end.promise
    },
  })
  const signal = await started.promise

  const stopping = loop.stop().then(() => (stopped = true))
  expect(signal.aborted).toBe(true)
  await Promise.resolve()
  expect(stopped).toBe(false)
  end.resolve(undefined)
  await stopping
})
