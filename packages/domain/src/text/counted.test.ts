import { expect, test } from "vitest"
import { counted } from "./counted.ts"

test.each([
  [0, "snapshot", undefined, "0 snapshots"],
  [1, "snapshot", undefined, "1 snapshot"],
  [2, "snapshot", undefined, "2 snapshots"],
  [1, "directory", "directories", "1 directory"],
  [3, "directory", "directories", "3 directories"],
] as const)("%d of %s", (count, singular, plural, words) => {
  expect(counted(count, singular, plural)).toBe(words)
})
