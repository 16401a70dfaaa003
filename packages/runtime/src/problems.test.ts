import { expect, test } from "vitest"
import { createLogger } from "./logger.ts"
import { openProblems } from "./problems.ts"

const lost = { code: "storage_unavailable", message: "the pool is not mounted" } as const

test("a problem is listed while it lasts, and the log tells its begin and its end once each", () => {
  const lines: string[] = []
  const destination = { write: (line: string) => lines.push(line) }
  const problems = openProblems(createLogger({ service: "test", level: "info", destination }))
  let changes = 0
  problems.listen(() => (changes += 1))

  for (let look = 0; look < 3; look += 1) problems.set("pool", lost)
  expect(problems.list()).toEqual([lost])
  problems.set("pool", undefined)
  problems.set("pool", undefined)

  expect(problems.list()).toEqual([])
  expect(changes).toBe(2)
  expect(lines.map((line) => JSON.parse(line).level)).toEqual(["error", "info"])
})

test("problems of other keys are not touched", () => {
  const problems = openProblems(createLogger({ service: "test", level: "silent" }))
  problems.set("pool", lost)
  problems.set("host", { code: "insufficient_storage", message: "the disk is full" })

  problems.set("pool", undefined)

  expect(problems.list().map(({ code }) => code)).toEqual(["insufficient_storage"])
})
