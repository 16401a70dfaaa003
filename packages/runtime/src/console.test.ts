// oxlint-disable no-console -- it is about the console
import { expect, test } from "vitest"
import { logConsole } from "./console.ts"
import { createLogger } from "./logger.ts"

test("what a library prints as a warning or an error is a line of the log, until it is undone", () => {
  const lines: string[] = []
  const destination = { write: (line: string) => void lines.push(line) }
  const { warn, error } = console
  const undo = logConsole(createLogger({ service: "test", level: "info", destination }))
  try {
    console.warn("Eviction policy is %s", "allkeys-lru")
    console.error(new Error("refused").message)
  } finally {
    undo()
  }

  expect(lines.map((line) => JSON.parse(line) as object)).toMatchObject([
    { level: "warn", printed: "Eviction policy is allkeys-lru", msg: "a library warns" },
    { level: "error", printed: "refused", msg: "a library reports an error" },
  ])
  expect([console.warn, console.error]).toEqual([warn, error])
})
