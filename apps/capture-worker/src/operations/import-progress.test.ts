import { expect, test } from "vitest"
import { importState } from "./import-progress.ts"

test("an import that is half done takes as long again", () => {
  expect(importState({ bytes: 50, totalBytes: 100 }, 4_000)).toEqual({
    bytes: 50,
    total_bytes: 100,
    seconds_left: 4,
  })
})

test("of an import that has read nothing nobody knows how long it takes", () => {
  expect(importState({ bytes: 0, totalBytes: 100 }, 4_000)).toEqual({ bytes: 0, total_bytes: 100 })
})
